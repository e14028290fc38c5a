#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/batches/sampler.h"
#include "data/packed/dataset.h"
#include "data/packed/frame_reader.h"
#include "engine/core/batch.h"
#include "engine/core/device.h"
#include "kernels/gather_frames.h"

namespace voca::data {

struct BatchSourceOptions {
  SamplerOptions sampler;
  std::int64_t seq_len = 256;                 ///< T ≥ 1
  engine::DType dtype = engine::DType::kF32;  ///< type of the inputs: kF32, or kF64 in host memory
  double augment_prob = 0.2;                  ///< from 0 to 1; training only
  std::int64_t max_shift = 3;                 ///< frames; training only
  int num_workers = 2;                        ///< threads; 0: batches are assembled in next()
  Residency residency = Residency::kAuto;
  std::int64_t max_bad_samples = engine::kMaxBadSamples;  ///< more bad samples than this end the run
  double stall_seconds = 30.0;                            ///< next() warns whenever it has waited this long
  engine::Device* pin_for = nullptr;  ///< device for which batch memory is pinned; null: ordinary memory
};

/// Target of every batch: 1 real, 0 fake, or the class index; −1 unknown. int32.
inline constexpr const char* kLabelTarget = "label";

/// What a batch holds: inputs "visual" and "audio" (T, width), target kLabelTarget.
[[nodiscard]] engine::BatchSpec batch_spec(const BatchSourceOptions& options, std::int64_t visual_dim,
                                           std::int64_t audio_dim);

/// Validates the options common to all sources of packed frames. Throws InternalError for a number out of
/// range.
void check(const BatchSourceOptions& options);
/// For training options, throws DataError naming the first sample without a label.
void check_trainable(const Dataset& dataset, std::span<const std::int64_t> samples,
                     const BatchSourceOptions& options);

/// Samples that a source has skipped because their frames are damaged.
class BadSamples {
 public:
  /// `dataset` must outlive this object; `most` bad samples are tolerated.
  BadSamples(const Dataset& dataset, std::int64_t most)
      : dataset_(dataset), most_(most), noted_(static_cast<std::size_t>(dataset.size()), 0) {}

  /// Logs and counts a sample at its first occurrence.
  void note(std::int64_t sample);
  /// Throws DataError naming all bad samples when there are more than `most`.
  void check() const;
  /// In the order of their first occurrence.
  [[nodiscard]] const std::vector<std::string>& ids() const { return ids_; }

 private:
  const Dataset& dataset_;
  std::int64_t most_;
  std::vector<std::uint8_t> noted_;  // by sample
  std::vector<std::string> ids_;
};

/// Windows of a sample of t = `frames` frames in one epoch: augmentation and random crop in training, centre
/// crop otherwise (model.md, "Sampling and augmentation"). A function of (seed, epoch, sample) only. Leaves
/// first_frame at 0: rows are counted from the sample's own first frame.
[[nodiscard]] PerStream<kernels::FrameWindow> sample_windows(const BatchSourceOptions& options,
                                                             std::int64_t epoch, std::int64_t sample,
                                                             std::int64_t frames);

}  // namespace voca::data
