#include "data/batches/batch_options.h"

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

SampleWindow sample_window(const BatchSourceOptions& options, std::int64_t epoch, std::int64_t sample,
                           std::int64_t frames) {
  SampleWindow window;
  window.visual.frames = window.audio.frames = frames;
  const std::int64_t spare = frames - options.seq_len;
  if (!options.sampler.training) {
    window.visual.start = window.audio.start = std::max<std::int64_t>(spare, 0) / 2;
    return window;
  }
  engine::RandomStream random(options.sampler.seed, engine::RandomPurpose::kAugmentation,
                              (static_cast<std::uint64_t>(epoch) << 32) | static_cast<std::uint64_t>(sample));
  // All three are always drawn, so that no option affects the other draws.
  const bool augmented = random.uniform() < options.augment_prob;
  const std::int64_t shift = random.below(2 * options.max_shift + 1) - options.max_shift;
  const std::int64_t start = random.below(std::max<std::int64_t>(spare, 0) + 1);
  window.visual.start = window.audio.start = start;
  if (augmented && shift > 0) window.audio.shift = shift;
  if (augmented && shift < 0) window.visual.shift = -shift;
  return window;
}

engine::BatchSpec batch_spec(const BatchSourceOptions& options, std::int64_t visual_dim,
                             std::int64_t audio_dim) {
  return {.inputs = {{std::string(name_of(Stream::kVisual)), {options.seq_len, visual_dim}, {}},
                     {std::string(name_of(Stream::kAudio)), {options.seq_len, audio_dim}, {}}},
          .targets = {{kLabelTarget, {}, engine::DType::kI32}}};
}

}  // namespace voca::data
