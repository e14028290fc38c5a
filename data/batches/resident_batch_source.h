#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/batches/batch_source.h"
#include "engine/core/device.h"

namespace voca::data {

/// Batches of a packed dataset whose frames lie on the device: they are uploaded once, and each batch is cut
/// out, augmented and converted there (kernels/gather_frames.h); the host only draws the windows. The same
/// samples, windows and, in float32, bits as PackedBatchSource gives. Checksums are verified as the frames
/// are uploaded; a bad sample is left out of its batch, named and counted when it is first met. On the CPU
/// the device's memory is the host's, and dtype may be kF64.
class ResidentBatchSource final : public engine::BatchSource {
 public:
  /// Uploads the frames of `samples`. options.dtype is the compute type; num_workers, residency,
  /// stall_seconds and pin_for have no use. The device outlives this. Throws UsageError for options out of
  /// range, Error (exit 74) when the frames do not fit.
  ResidentBatchSource(std::shared_ptr<const Dataset> dataset, std::vector<std::int64_t> samples,
                      const BatchSourceOptions& options, engine::Device& device);
  ~ResidentBatchSource() override;

  /// Device memory that one takes: its frames, and its batch.
  [[nodiscard]] static std::size_t device_bytes(const Dataset& dataset, std::span<const std::int64_t> samples,
                                                const BatchSourceOptions& options);

  /// Of these, its batch.
  [[nodiscard]] static std::size_t batch_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                                               std::int64_t audio_dim);

  [[nodiscard]] std::int64_t samples_per_epoch() const override;
  [[nodiscard]] std::int64_t batches_per_epoch() const override;
  [[nodiscard]] std::int64_t max_batch_size() const override;
  void start_epoch(std::int64_t epoch, std::int64_t first_batch) override;
  /// Queued on the device's compute stream, behind whatever uses the batch before.
  const engine::Batch* next() override;
  /// Known unless a checksum did not hold in the upload.
  [[nodiscard]] std::optional<std::int64_t> size_of_batch(std::int64_t batch) const override;
  [[nodiscard]] std::int64_t bad_samples() const override;
  /// Ids of the samples left out so far, in the order they were met.
  [[nodiscard]] std::vector<std::string> bad_ids() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace voca::data
