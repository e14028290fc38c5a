#pragma once

#include <cstdint>
#include <memory>
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
  std::int64_t seq_len = 256;                 ///< T
  engine::DType dtype = engine::DType::kF32;  ///< of the inputs: kF32 or kF64 in host memory
  double augment_prob = 0.2;                  ///< training only
  std::int64_t max_shift = 3;                 ///< frames; training only
  int num_workers = 0;                        ///< threads; 0 assembles in next()
  Residency residency = Residency::kAuto;
  std::int64_t max_bad_samples = engine::kMaxBadSamples;  ///< more of them than this end the run
  double stall_seconds = 30.0;        ///< next() warns after waiting so long, and each time again
  engine::Device* pin_for = nullptr;  ///< batches lie in host memory pinned for it; null: ordinary memory
};

/// What every source of packed frames checks first. Throws UsageError naming the option that is out of range.
void check(const BatchSourceOptions& options);
/// Throws DataError naming a sample without a label where `options` are a training's.
void check_trainable(const Dataset& dataset, std::span<const std::int64_t> samples,
                     const BatchSourceOptions& options);

/// How one sample's two streams are cut for one epoch.
struct SampleWindow {
  kernels::FrameWindow visual;
  kernels::FrameWindow audio;
};

/// The window of a sample of t = `frames` frames: augmentation and random crop in training, the centre crop
/// otherwise (model.md, "Sampling and augmentation"). A function of (seed, epoch, sample) only. first_frame
/// is left 0: rows count from the sample's own first frame.
[[nodiscard]] SampleWindow sample_window(const BatchSourceOptions& options, std::int64_t epoch,
                                         std::int64_t sample, std::int64_t frames);

/// Bytes of memory that a source's inputs take, those of batches in flight included.
[[nodiscard]] std::size_t batch_buffer_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                                             std::int64_t audio_dim);

/// Batches of a packed dataset: inputs 0 visual (size, T, visual_dim) and 1 audio (size, T, audio_dim), rows
/// read straight into place. The same bits for every num_workers and residency. Each video's checksum is
/// verified on its first use; a bad one is left out of its batch with a warning that names it, and counted.
/// Two batches are prepared ahead of the one in use. The destructor waits for reads that have begun.
class PackedBatchSource final : public engine::BatchSource {
 public:
  /// `samples` of `dataset`, usually a split's. Throws UsageError for options out of range.
  PackedBatchSource(std::shared_ptr<const Dataset> dataset, std::vector<std::int64_t> samples,
                    const BatchSourceOptions& options);
  /// The same with frames from `reader` instead of options.residency's.
  PackedBatchSource(std::shared_ptr<const Dataset> dataset, std::vector<std::int64_t> samples,
                    const BatchSourceOptions& options, std::unique_ptr<FrameReader> reader);
  ~PackedBatchSource() override;

  [[nodiscard]] std::int64_t samples_per_epoch() const override;
  [[nodiscard]] std::int64_t batches_per_epoch() const override;
  [[nodiscard]] std::int64_t max_batch_size() const override;
  void start_epoch(std::int64_t epoch, std::int64_t first_batch) override;
  const engine::Batch* next() override;
  [[nodiscard]] std::int64_t bad_samples() const override;
  /// Ids of the samples left out so far, in the order they were met.
  [[nodiscard]] std::vector<std::string> bad_ids() const;
  /// What kAuto became.
  [[nodiscard]] Residency residency() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace voca::data
