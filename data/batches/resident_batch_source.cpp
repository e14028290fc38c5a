#include "data/batches/resident_batch_source.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <span>
#include <utility>

#include "engine/base/activity.h"
#include "engine/base/error.h"
#include "engine/core/arena.h"
#include "engine/core/context.h"
#include "engine/ops/ops.h"

namespace voca::data {
namespace {

using engine::DType;
using engine::Tensor;
using kernels::FrameWindow;

constexpr const char* kFrames = "frames held on the device";
constexpr const char* kBatches = "batches";
/// Size of an upload chunk; one chunk is read from the file while the other is copied.
constexpr std::size_t kChunkBytes = std::size_t{8} << 20;

/// Layout of a batch's host data, copied at once: each stream's windows, then the labels.
struct Directions {
  static std::size_t bytes(std::int64_t batch_size) {
    return static_cast<std::size_t>(batch_size) * (2 * sizeof(FrameWindow) + sizeof(std::int32_t));
  }
  /// Windows come first because they need the larger alignment.
  static std::size_t windows_at(Stream stream, std::int64_t batch_size) {
    return static_cast<std::size_t>(stream) * static_cast<std::size_t>(batch_size) * sizeof(FrameWindow);
  }
  static std::size_t labels_at(std::int64_t batch_size) {
    return 2 * static_cast<std::size_t>(batch_size) * sizeof(FrameWindow);
  }
};

}  // namespace

ResidentBatchSource::ResidentBatchSource(std::shared_ptr<const Dataset> dataset,
                                         const std::vector<std::int64_t>& samples,
                                         const BatchSourceOptions& options, engine::Device& device)
    : dataset_(std::move(dataset)),
      options_(options),
      sampler_(samples, options.sampler),
      device_(device),
      no_memory_(nullptr, 0, device.kind()),
      bad_(*dataset_, options.max_bad_samples),
      first_frames_(static_cast<std::size_t>(dataset_->size())),
      good_(first_frames_.size(), 0) {
  check(options);
  check_trainable(*dataset_, samples, options);
  const std::int64_t size = options.sampler.batch_size;
  PerStream<std::int64_t> rows{};
  for (const std::int64_t sample : samples)
    for (const Stream stream : kStreams) rows[stream] += dataset_->frames(stream, sample);
  for (const Stream stream : kStreams) {
    const std::int64_t dim = dataset_->dim(stream);
    frames_[stream] = {.shape = {rows[stream], dim}, .dtype = dataset_->dtype(), .name = kFrames};
    place(frames_[stream], kFrames);
    inputs_[stream] = {
        .shape = {size, options.seq_len, dim}, .dtype = options.dtype, .name = name_of(stream).data()};
    place(inputs_[stream], kBatches);
  }
  directions_ = device.allocate(kBatches, Directions::bytes(size));
  for (Slot& slot : slots_) {
    slot.host = device.allocate_pinned(kBatches, Directions::bytes(size));
    slot.copied = engine::Device::Event(device);
  }
  kept_.reserve(static_cast<std::size_t>(size));
  upload(samples);
}

void ResidentBatchSource::place(Tensor& tensor, const char* name) {
  blocks_.push_back(device_.allocate(name, tensor.bytes()));
  tensor.data = blocks_.back().data();
  tensor.device = device_.kind();
}

void ResidentBatchSource::upload(const std::vector<std::int64_t>& samples) {
  const std::size_t row = std::max(dataset_->row_bytes(Stream::kVisual), dataset_->row_bytes(Stream::kAudio));
  for (Slot& chunk : chunks_) {
    chunk.host = device_.allocate_pinned("upload", std::max(kChunkBytes, row));
    chunk.copied = engine::Device::Event(device_);
  }
  for (const std::int64_t sample : samples) {
    const auto i = static_cast<std::size_t>(sample);
    first_frames_[i] = next_frame_;
    try {
      FrameCheck check(*dataset_, sample);
      for (const Stream stream : kStreams) upload_stream(sample, stream, check);
      good_[i] = check.good() ? 1 : 0;
    } catch (const engine::DataError&) {
      // A damaged chunk makes the sample bad, like a wrong checksum. Its missing rows are never read.
      for (const Stream stream : kStreams)
        next_frame_[stream] = first_frames_[i][stream] + dataset_->frames(stream, sample);
    }
  }
  device_.synchronize(device_.copy_stream());
  chunks_ = {};
  all_good_ = std::ranges::all_of(
      samples, [&](std::int64_t sample) { return good_[static_cast<std::size_t>(sample)] != 0; });
}

// Rows are read into one pinned chunk while the other is copied.
void ResidentBatchSource::upload_stream(std::int64_t sample, Stream stream, FrameCheck& check) {
  const std::size_t row = dataset_->row_bytes(stream);
  const std::int64_t all = dataset_->frames(stream, sample);
  std::int64_t step = 0;
  for (std::int64_t first = 0; first < all; first += step) {
    Slot& chunk = chunks_[next_chunk_];
    next_chunk_ = 1 - next_chunk_;
    step = std::min(all - first, static_cast<std::int64_t>(chunk.host.bytes() / row));
    const std::size_t bytes = static_cast<std::size_t>(step) * row;
    engine::report_activity("uploading frames");
    chunk.copied.synchronize();
    dataset_->read_raw(stream, sample, first, step, chunk.host.data());
    check.add({chunk.host.data(), bytes});
    auto* const to =
        static_cast<std::byte*>(frames_[stream].data) + static_cast<std::size_t>(next_frame_[stream]) * row;
    device_.copy_to_device(to, chunk.host.data(), bytes, device_.copy_stream());
    chunk.copied.record(device_.copy_stream());
    next_frame_[stream] += step;
  }
}

/// Writes labels and windows of the good samples.
void ResidentBatchSource::direct(std::byte* host, std::int64_t size) const {
  auto* const labels = reinterpret_cast<std::int32_t*>(host + Directions::labels_at(size));
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    const std::int64_t sample = kept_[i];
    labels[i] = dataset_->label(sample);
    const auto windows = sample_windows(options_, epoch_, sample, dataset_->frames(sample));
    for (const Stream stream : kStreams) {
      auto* const to = reinterpret_cast<FrameWindow*>(host + Directions::windows_at(stream, size));
      to[i] = windows[stream];
      to[i].first_frame = first_frames_[static_cast<std::size_t>(sample)][stream];
    }
  }
}

const engine::Batch* ResidentBatchSource::next() {
  VOCA_CHECK(active_);
  if (next_batch_ == sampler_.batches()) return nullptr;
  kept_.clear();
  for (const std::int64_t sample : sampler_.batch(next_batch_)) {
    if (good_[static_cast<std::size_t>(sample)] != 0) {
      kept_.push_back(sample);
    } else {
      bad_.note(sample);
    }
  }
  bad_.check();
  const auto size = static_cast<std::int64_t>(kept_.size());
  batch_.inputs.clear();
  batch_.size = size;
  batch_.first_position = sampler_.first_position(next_batch_);
  batch_.samples = kept_;
  Slot& slot = slots_[static_cast<std::size_t>(next_batch_) % slots_.size()];
  ++next_batch_;
  slot.copied.synchronize();
  direct(slot.host.data(), size);
  const engine::Stream stream = device_.compute_stream();
  device_.copy_to_device(directions_.data(), slot.host.data(), Directions::bytes(size), stream);
  slot.copied.record(stream);
  engine::Context context{.arena = no_memory_, .stream = stream};
  for (const Stream from : kStreams) {
    const Tensor windows{.data = directions_.data() + Directions::windows_at(from, size),
                         .shape = {size, static_cast<std::int64_t>(sizeof(FrameWindow))},
                         .dtype = DType::kU8,
                         .device = device_.kind(),
                         .name = "windows"};
    Tensor input = inputs_[from].rows(0, size);
    if (size > 0) engine::ops::gather_frames(context, frames_[from], windows, input);
    batch_.inputs.push_back(input);
  }
  batch_.targets.clear();
  batch_.targets.push_back({.data = directions_.data() + Directions::labels_at(size),
                            .shape = {size},
                            .dtype = DType::kI32,
                            .device = device_.kind(),
                            .name = kLabelTarget});
  return &batch_;
}

std::size_t ResidentBatchSource::batch_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                                             std::int64_t audio_dim) {
  const std::int64_t rows = options.sampler.batch_size * options.seq_len;
  return static_cast<std::size_t>(rows * (visual_dim + audio_dim)) * engine::size_of(options.dtype) +
         Directions::bytes(options.sampler.batch_size);
}

void ResidentBatchSource::start_epoch(std::int64_t epoch, std::int64_t first_batch) {
  VOCA_CHECK(first_batch >= 0 && first_batch <= sampler_.batches());
  epoch_ = epoch;
  sampler_.start_epoch(epoch);
  next_batch_ = first_batch;
  active_ = true;
}

std::optional<std::int64_t> ResidentBatchSource::size_of_batch(std::int64_t batch) const {
  if (!all_good_) return {};
  return sampler_.size(batch);
}

}  // namespace voca::data
