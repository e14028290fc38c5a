#include "data/batches/batch_options.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>

#include "engine/base/error.h"
#include "engine/base/random.h"

namespace voca::data {

void check(const BatchSourceOptions& options) {
  VOCA_CHECK(options.seq_len >= 1 && options.max_shift >= 0);
  VOCA_CHECK(options.augment_prob >= 0.0 && options.augment_prob <= 1.0);
  VOCA_CHECK(options.num_workers >= 0 && options.max_bad_samples >= 0);
  VOCA_CHECK(options.stall_seconds > 0.0);
}

void check_trainable(const Dataset& dataset, std::span<const std::int64_t> samples,
                     const BatchSourceOptions& options) {
  for (const std::int64_t sample : samples) {
    VOCA_CHECK(sample >= 0 && sample < dataset.size());
    if (options.sampler.training && dataset.label(sample) < 0) {
      throw engine::DataError("{}: {} has no label and cannot be trained on", dataset.path().string(),
                              dataset.id(sample));
    }
  }
}

void BadSamples::note(std::int64_t sample) {
  std::uint8_t& noted = noted_[static_cast<std::size_t>(sample)];
  if (noted != 0) return;
  noted = 1;
  ids_.push_back(dataset_.id(sample));
  spdlog::warn("{}: the frames of {} are damaged ({}); left out", dataset_.path().string(), ids_.back(),
               dataset_.has_checksums() ? "their checksum does not hold" : "not all numbers are finite");
}

void BadSamples::check() const {
  if (static_cast<std::int64_t>(ids_.size()) <= most_) return;
  throw engine::DataError("{}: {} samples are damaged, more than --max_bad_samples {}: {}; pack again",
                          dataset_.path().string(), ids_.size(), most_, fmt::join(ids_, ", "));
}

PerStream<kernels::FrameWindow> sample_windows(const BatchSourceOptions& options, std::int64_t epoch,
                                               std::int64_t sample, std::int64_t frames) {
  const std::int64_t spare = std::max<std::int64_t>(frames - options.seq_len, 0);
  PerStream<kernels::FrameWindow> windows;
  windows.fill({.frames = frames, .start = spare / 2});
  if (!options.sampler.training) return windows;
  engine::RandomStream random(options.sampler.seed, engine::RandomPurpose::kAugmentation,
                              (static_cast<std::uint64_t>(epoch) << 32) | static_cast<std::uint64_t>(sample));
  // All three are always drawn, so that no option affects the other draws.
  const bool augmented = random.uniform() < options.augment_prob;
  const std::int64_t shift = random.below(2 * options.max_shift + 1) - options.max_shift;
  windows.fill({.frames = frames, .start = random.below(spare + 1)});
  if (augmented && shift > 0) windows[Stream::kAudio].shift = shift;
  if (augmented && shift < 0) windows[Stream::kVisual].shift = -shift;
  return windows;
}

engine::BatchSpec batch_spec(const BatchSourceOptions& options, std::int64_t visual_dim,
                             std::int64_t audio_dim) {
  return {.inputs = {{std::string(name_of(Stream::kVisual)), {options.seq_len, visual_dim}, {}},
                     {std::string(name_of(Stream::kAudio)), {options.seq_len, audio_dim}, {}}},
          .targets = {{kLabelTarget, {}, engine::DType::kI32}}};
}

}  // namespace voca::data
