#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/batches/batch_source.h"
#include "engine/core/device.h"

namespace voca::data {

/// Batches of a packed dataset whose frames are resident on the device: frames are uploaded once, and each
/// batch is cut out, augmented and converted there (kernels/gather_frames.h); the host only draws the
/// windows. Samples, windows and, in float32, bits are identical to PackedBatchSource's. Checksums are
/// verified during the upload; a bad sample is skipped, and it is logged and counted at its first occurrence.
/// On the CPU, device memory is host memory, and dtype may be kF64.
class ResidentBatchSource final : public engine::BatchSource {
 public:
  /// Uploads the frames of `samples`. options.dtype is the compute type; num_workers, residency,
  /// stall_seconds and pin_for are ignored. `device` must outlive this object. Throws UsageError for options
  /// out of range, Error (exit 74) when the frames do not fit.
  ResidentBatchSource(std::shared_ptr<const Dataset> dataset, std::vector<std::int64_t> samples,
                      const BatchSourceOptions& options, engine::Device& device);
  ~ResidentBatchSource() override;

  /// Device memory of a source in bytes: frames and batch.
  [[nodiscard]] static std::size_t device_bytes(const Dataset& dataset, std::span<const std::int64_t> samples,
                                                const BatchSourceOptions& options);

  /// The batch's part of device_bytes().
  [[nodiscard]] static std::size_t batch_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                                               std::int64_t audio_dim);

  [[nodiscard]] std::int64_t samples_per_epoch() const override;
  [[nodiscard]] std::int64_t batches_per_epoch() const override;
  [[nodiscard]] std::int64_t max_batch_size() const override;
  void start_epoch(std::int64_t epoch, std::int64_t first_batch) override;
  /// Queued on the device's compute stream, after all work that uses the previous batch.
  const engine::Batch* next() override;
  /// Empty if a bad sample was found during the upload.
  [[nodiscard]] std::optional<std::int64_t> size_of_batch(std::int64_t batch) const override;
  [[nodiscard]] std::int64_t bad_samples() const override;
  /// Ids of the samples skipped so far, in the order of their first occurrence.
  [[nodiscard]] std::vector<std::string> bad_ids() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace voca::data
