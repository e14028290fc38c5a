#include "data/packed/frame_reader.h"

#include <limits>
#include <new>
#include <string>
#include <utility>

#include "data/tree/convert.h"
#include "data/tree/npy.h"
#include "data/tree/parallel.h"
#include "engine/base/activity.h"
#include "engine/base/error.h"

namespace voca::data {
namespace {

class DiskReader final : public FrameReader {
 public:
  explicit DiskReader(std::shared_ptr<const Dataset> dataset) : dataset_(std::move(dataset)) {}

  void read(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count, engine::DType dtype,
            void* out) const override {
    dataset_->read_rows(stream, sample, first, count, dtype, out);
  }
  [[nodiscard]] bool verify(std::int64_t sample, std::span<std::byte> scratch) const override {
    return dataset_->verify(sample, scratch);
  }

 private:
  std::shared_ptr<const Dataset> dataset_;
};

class HostReader final : public FrameReader {
 public:
  HostReader(std::shared_ptr<const Dataset> dataset, std::span<const std::int64_t> samples, int num_workers)
      : dataset_(std::move(dataset)),
        at_(static_cast<std::size_t>(dataset_->size()), kAbsent),
        good_(at_.size(), 0),
        bytes_(allocate(samples)) {
    std::uint64_t next = 0;
    std::vector<std::int64_t> distinct;
    for (const std::int64_t sample : samples) {
      if (at_[static_cast<std::size_t>(sample)] != kAbsent) continue;
      at_[static_cast<std::size_t>(sample)] = next;
      next += stream_bytes(Stream::kVisual, sample) + stream_bytes(Stream::kAudio, sample);
      distinct.push_back(sample);
    }
    for_each_index(static_cast<std::int64_t>(distinct.size()), num_workers,
                   [&](std::int64_t i) { load(distinct[static_cast<std::size_t>(i)]); });
  }

  void read(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count, engine::DType dtype,
            void* out) const override {
    VOCA_CHECK(first >= 0 && count >= 0 && first + count <= dataset_->frames(stream, sample));
    const std::byte* const from =
        rows(stream, sample) + static_cast<std::size_t>(first) * dataset_->row_bytes(stream);
    widen(dataset_->dtype(), from, count * dataset_->dim(stream), dtype, out);
  }
  [[nodiscard]] bool verify(std::int64_t sample, std::span<std::byte> /*scratch*/) const override {
    return good_[static_cast<std::size_t>(sample)] != 0;
  }

 private:
  static constexpr std::uint64_t kAbsent = std::numeric_limits<std::uint64_t>::max();

  [[nodiscard]] Buffer allocate(std::span<const std::int64_t> samples) const {
    const std::int64_t bytes = frame_bytes(*dataset_, samples);
    try {
      return Buffer(static_cast<std::size_t>(bytes));
    } catch (const std::bad_alloc&) {
      throw engine::UsageError(
          "--data_residency host: the frames take {:.1f} GB of memory, which cannot be allocated; use disk",
          static_cast<double>(bytes) / 1e9);
    }
  }
  [[nodiscard]] std::uint64_t stream_bytes(Stream stream, std::int64_t sample) const {
    return static_cast<std::uint64_t>(dataset_->frames(stream, sample)) * dataset_->row_bytes(stream);
  }
  [[nodiscard]] std::byte* rows(Stream stream, std::int64_t sample) const {
    const std::uint64_t at = at_[static_cast<std::size_t>(sample)];
    VOCA_CHECK(at != kAbsent);
    return bytes_.data() + at + (stream == Stream::kAudio ? stream_bytes(Stream::kVisual, sample) : 0);
  }

  void load(std::int64_t sample) {
    engine::report_activity("loading frames into memory");
    FrameCheck check(*dataset_, sample);
    try {
      for (const Stream stream : kStreams) {
        const std::span<std::byte> into(rows(stream, sample), stream_bytes(stream, sample));
        dataset_->read_raw(stream, sample, 0, dataset_->frames(stream, sample), into.data());
        check.add(into);
      }
    } catch (const engine::DataError&) {
      return;  // a damaged chunk makes the sample bad, like a wrong checksum
    }
    good_[static_cast<std::size_t>(sample)] = check.good() ? 1 : 0;
  }

  std::shared_ptr<const Dataset> dataset_;
  std::vector<std::uint64_t> at_;   ///< by sample: offset of its visual rows, which its audio rows follow
  std::vector<std::uint8_t> good_;  ///< by sample
  Buffer bytes_;
};

}  // namespace

std::unique_ptr<FrameReader> make_disk_reader(std::shared_ptr<const Dataset> dataset) {
  return std::make_unique<DiskReader>(std::move(dataset));
}

std::unique_ptr<FrameReader> make_host_reader(std::shared_ptr<const Dataset> dataset,
                                              std::span<const std::int64_t> samples, int num_workers) {
  return std::make_unique<HostReader>(std::move(dataset), samples, num_workers);
}

std::int64_t frame_bytes(const Dataset& dataset, std::span<const std::int64_t> samples) {
  std::int64_t bytes = 0;
  for (const std::int64_t sample : samples) {
    for (const Stream stream : kStreams)
      bytes += dataset.frames(stream, sample) * static_cast<std::int64_t>(dataset.row_bytes(stream));
  }
  return bytes;
}

Residency resolve_residency(Residency residency, std::int64_t bytes, int copies, std::size_t free) {
  if (residency != Residency::kAuto) return residency;
  const std::size_t share = free / 2 / static_cast<std::size_t>(copies);
  return static_cast<std::size_t>(bytes) <= share ? Residency::kHost : Residency::kDisk;
}

}  // namespace voca::data
