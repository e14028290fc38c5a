#include "data/batches/resident_batch_source.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "data/packed/bad_samples.h"
#include "data/packed/frame_check.h"
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

std::array<std::int64_t, 2> frames_of(const Dataset& dataset, std::span<const std::int64_t> samples) {
  std::array<std::int64_t, 2> frames{};
  for (const std::int64_t sample : samples) {
    for (const Stream stream : kStreams)
      frames[static_cast<std::size_t>(stream)] += dataset.frames(stream, sample);
  }
  return frames;
}

}  // namespace

struct ResidentBatchSource::State {
  State(std::shared_ptr<const Dataset> dataset_in, std::vector<std::int64_t> samples_in,
        const BatchSourceOptions& options_in, engine::Device& device_in)
      : dataset(std::move(dataset_in)),
        options(options_in),
        sampler(samples_in, options_in.sampler),
        device(device_in),
        no_memory(nullptr, 0, device_in.kind()),
        bad(*dataset, options_in.max_bad_samples),
        first_frames(static_cast<std::size_t>(dataset->size())),
        good(first_frames.size(), 0) {
    const std::int64_t size = options.sampler.batch_size;
    const std::array<std::int64_t, 2> rows = frames_of(*dataset, samples_in);
    for (const Stream stream : kStreams) {
      const auto s = static_cast<std::size_t>(stream);
      frames[s] = {.shape = {rows[s], dataset->dim(stream)}, .dtype = dataset->dtype(), .name = kFrames};
      place(frames[s]);
      inputs[s] = {.shape = {size, options.seq_len, dataset->dim(stream)},
                   .dtype = options.dtype,
                   .name = name_of(stream).data()};
      place(inputs[s], kBatches);
    }
    directions = device.allocate(kBatches, Directions::bytes(size));
    for (Slot& slot : slots) {
      slot.host = device.allocate_pinned(kBatches, Directions::bytes(size));
      slot.copied = engine::Device::Event(device);
    }
    kept.reserve(static_cast<std::size_t>(size));
    upload(samples_in);
  }

  void place(Tensor& tensor, const char* name = kFrames) {
    blocks.push_back(device.allocate(name, tensor.bytes()));
    tensor.data = blocks.back().data();
    tensor.device = device.kind();
  }

  void upload(const std::vector<std::int64_t>& samples);
  void upload_stream(std::int64_t sample, Stream stream, FrameCheck& check);
  const engine::Batch* next();
  void direct(std::byte* host, std::int64_t size) const;

  /// Pinned memory, and the event after which the device no longer reads it.
  struct Slot {
    engine::Device::PinnedBlock host;
    engine::Device::Event copied;
  };

  std::shared_ptr<const Dataset> dataset;
  BatchSourceOptions options;
  Sampler sampler;
  engine::Device& device;
  engine::Arena no_memory;  ///< for the contexts of operations that need no arena memory
  BadSamples bad;
  std::vector<std::array<std::int64_t, 2>> first_frames;  ///< by sample: its first row in `frames`
  std::vector<std::uint8_t> good;                         ///< by sample
  bool all_good = true;
  std::vector<engine::Device::Block> blocks;
  std::array<Tensor, 2> frames;  ///< by stream, (Σ frames, dim)
  std::array<Tensor, 2> inputs;  ///< for the largest batch
  engine::Device::Block directions;
  std::array<Slot, 2> slots;
  std::array<Slot, 2> chunks;  ///< for the upload; freed afterwards
  std::array<std::int64_t, 2> next_frame{};
  std::size_t next_chunk = 0;
  std::int64_t epoch = 0;
  std::int64_t next_batch = 0;
  bool active = false;
  std::vector<std::int64_t> kept;
  engine::Batch batch;
};

void ResidentBatchSource::State::upload(const std::vector<std::int64_t>& samples) {
  const std::size_t row = std::max(dataset->row_bytes(Stream::kVisual), dataset->row_bytes(Stream::kAudio));
  for (Slot& chunk : chunks) {
    chunk.host = device.allocate_pinned("upload", std::max(kChunkBytes, row));
    chunk.copied = engine::Device::Event(device);
  }
  for (const std::int64_t sample : samples) {
    const auto i = static_cast<std::size_t>(sample);
    first_frames[i] = next_frame;
    try {
      FrameCheck check(*dataset, sample);
      for (const Stream stream : kStreams) upload_stream(sample, stream, check);
      good[i] = check.good() ? 1 : 0;
    } catch (const engine::DataError&) {
      // A damaged chunk makes the sample bad, like a wrong checksum. Its missing rows are never read.
      for (const Stream stream : kStreams) {
        const auto s = static_cast<std::size_t>(stream);
        next_frame[s] = first_frames[i][s] + dataset->frames(stream, sample);
      }
    }
  }
  device.synchronize(device.copy_stream());
  chunks = {};
  all_good = std::all_of(samples.begin(), samples.end(),
                         [&](std::int64_t sample) { return good[static_cast<std::size_t>(sample)] != 0; });
}

// Rows are read into one pinned chunk while the other is copied.
void ResidentBatchSource::State::upload_stream(std::int64_t sample, Stream stream, FrameCheck& check) {
  const auto s = static_cast<std::size_t>(stream);
  const std::size_t row = dataset->row_bytes(stream);
  const std::int64_t all = dataset->frames(stream, sample);
  std::int64_t step = 0;
  for (std::int64_t first = 0; first < all; first += step) {
    Slot& chunk = chunks[next_chunk];
    next_chunk = 1 - next_chunk;
    step = std::min(all - first, static_cast<std::int64_t>(chunk.host.bytes() / row));
    const std::size_t bytes = static_cast<std::size_t>(step) * row;
    engine::report_activity("uploading frames");
    chunk.copied.synchronize();
    dataset->read_raw(stream, sample, first, step, chunk.host.data());
    check.add({chunk.host.data(), bytes});
    auto* const to = static_cast<std::byte*>(frames[s].data) + static_cast<std::size_t>(next_frame[s]) * row;
    device.copy_to_device(to, chunk.host.data(), bytes, device.copy_stream());
    chunk.copied.record(device.copy_stream());
    next_frame[s] += step;
  }
}

/// Writes labels and windows of the good samples.
void ResidentBatchSource::State::direct(std::byte* host, std::int64_t size) const {
  auto* const labels = reinterpret_cast<std::int32_t*>(host + Directions::labels_at(size));
  auto* const visual = reinterpret_cast<FrameWindow*>(host + Directions::windows_at(Stream::kVisual, size));
  auto* const audio = reinterpret_cast<FrameWindow*>(host + Directions::windows_at(Stream::kAudio, size));
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const std::int64_t sample = kept[i];
    const SampleWindow window = sample_window(options, epoch, sample, dataset->frames(sample));
    const std::array<std::int64_t, 2>& first = first_frames[static_cast<std::size_t>(sample)];
    labels[i] = dataset->label(sample);
    visual[i] = window.visual;
    visual[i].first_frame = first[static_cast<std::size_t>(Stream::kVisual)];
    audio[i] = window.audio;
    audio[i].first_frame = first[static_cast<std::size_t>(Stream::kAudio)];
  }
}

const engine::Batch* ResidentBatchSource::State::next() {
  VOCA_CHECK(active);
  if (next_batch == sampler.batches()) return nullptr;
  kept.clear();
  for (const std::int64_t sample : sampler.batch(next_batch)) {
    if (good[static_cast<std::size_t>(sample)] != 0) {
      kept.push_back(sample);
    } else {
      bad.note(sample);
    }
  }
  bad.check();
  const auto size = static_cast<std::int64_t>(kept.size());
  batch.inputs.clear();
  batch.size = size;
  batch.first_position = sampler.first_position(next_batch);
  batch.samples = kept;
  Slot& slot = slots[static_cast<std::size_t>(next_batch) % slots.size()];
  ++next_batch;
  slot.copied.synchronize();
  direct(slot.host.data(), size);
  const engine::Stream stream = device.compute_stream();
  device.copy_to_device(directions.data(), slot.host.data(), Directions::bytes(size), stream);
  slot.copied.record(stream);
  engine::Context context{.arena = no_memory, .stream = stream};
  for (const Stream from : kStreams) {
    const auto s = static_cast<std::size_t>(from);
    const Tensor windows{.data = directions.data() + Directions::windows_at(from, size),
                         .shape = {size, static_cast<std::int64_t>(sizeof(FrameWindow))},
                         .dtype = DType::kU8,
                         .device = device.kind(),
                         .name = "windows"};
    batch.inputs.push_back(inputs[s].rows(0, size));
    if (size > 0) engine::ops::gather_frames(context, frames[s], windows, batch.inputs[s]);
  }
  batch.targets.clear();
  batch.targets.push_back({.data = directions.data() + Directions::labels_at(size),
                           .shape = {size},
                           .dtype = DType::kI32,
                           .device = device.kind(),
                           .name = kLabelTarget});
  return &batch;
}

ResidentBatchSource::ResidentBatchSource(std::shared_ptr<const Dataset> dataset,
                                         std::vector<std::int64_t> samples, const BatchSourceOptions& options,
                                         engine::Device& device) {
  check(options);
  check_trainable(*dataset, samples, options);
  state_ = std::make_unique<State>(std::move(dataset), std::move(samples), options, device);
}

ResidentBatchSource::~ResidentBatchSource() = default;

std::size_t ResidentBatchSource::device_bytes(const Dataset& dataset, std::span<const std::int64_t> samples,
                                              const BatchSourceOptions& options) {
  return static_cast<std::size_t>(frame_bytes(dataset, samples)) +
         batch_bytes(options, dataset.dim(Stream::kVisual), dataset.dim(Stream::kAudio));
}

std::size_t ResidentBatchSource::batch_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                                             std::int64_t audio_dim) {
  const std::int64_t rows = options.sampler.batch_size * options.seq_len;
  return static_cast<std::size_t>(rows * (visual_dim + audio_dim)) * engine::size_of(options.dtype) +
         Directions::bytes(options.sampler.batch_size);
}

std::int64_t ResidentBatchSource::samples_per_epoch() const {
  return state_->sampler.samples();
}
std::int64_t ResidentBatchSource::batches_per_epoch() const {
  return state_->sampler.batches();
}
std::int64_t ResidentBatchSource::max_batch_size() const {
  return state_->options.sampler.batch_size;
}
void ResidentBatchSource::start_epoch(std::int64_t epoch, std::int64_t first_batch) {
  VOCA_CHECK(first_batch >= 0 && first_batch <= state_->sampler.batches());
  state_->epoch = epoch;
  state_->sampler.start_epoch(epoch);
  state_->next_batch = first_batch;
  state_->active = true;
}
const engine::Batch* ResidentBatchSource::next() {
  return state_->next();
}
std::optional<std::int64_t> ResidentBatchSource::size_of_batch(std::int64_t batch) const {
  if (!state_->all_good) return {};
  return state_->sampler.size(batch);
}
std::int64_t ResidentBatchSource::bad_samples() const {
  return static_cast<std::int64_t>(state_->bad.ids().size());
}
std::vector<std::string> ResidentBatchSource::bad_ids() const {
  return state_->bad.ids();
}

}  // namespace voca::data
