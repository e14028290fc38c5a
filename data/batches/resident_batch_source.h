#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/batches/batch_options.h"
#include "engine/core/arena.h"
#include "engine/core/device.h"
#include "engine/core/tensor.h"

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
  ResidentBatchSource(std::shared_ptr<const Dataset> dataset, const std::vector<std::int64_t>& samples,
                      const BatchSourceOptions& options, engine::Device& device);

  /// Device memory of a source in bytes, in addition to its frames.
  [[nodiscard]] static std::size_t batch_bytes(const BatchSourceOptions& options, std::int64_t visual_dim,
                                               std::int64_t audio_dim);

  [[nodiscard]] std::int64_t samples_per_epoch() const override { return sampler_.samples(); }
  [[nodiscard]] std::int64_t batches_per_epoch() const override { return sampler_.batches(); }
  [[nodiscard]] std::int64_t max_batch_size() const override { return options_.sampler.batch_size; }
  void start_epoch(std::int64_t epoch, std::int64_t first_batch) override;
  /// Queued on the device's compute stream, after all work that uses the previous batch.
  const engine::Batch* next() override;
  /// Empty if a bad sample was found during the upload.
  [[nodiscard]] std::optional<std::int64_t> size_of_batch(std::int64_t batch) const override;
  [[nodiscard]] std::int64_t bad_samples() const override { return std::ssize(bad_.ids()); }
  /// Ids of the samples skipped so far, in the order of their first occurrence.
  [[nodiscard]] const std::vector<std::string>& bad_ids() const { return bad_.ids(); }

 private:
  /// Pinned memory, and the event after which the device no longer reads it.
  struct Slot {
    engine::Device::PinnedBlock host;
    engine::Device::Event copied;
  };

  void place(engine::Tensor& tensor, const char* name);
  void upload(const std::vector<std::int64_t>& samples);
  void upload_stream(std::int64_t sample, Stream stream, FrameCheck& check);
  void direct(std::byte* host, std::int64_t size) const;

  std::shared_ptr<const Dataset> dataset_;
  BatchSourceOptions options_;
  Sampler sampler_;
  engine::Device& device_;
  engine::Arena no_memory_;  ///< for the contexts of operations that need no arena memory
  BadSamples bad_;
  std::vector<PerStream<std::int64_t>> first_frames_;  ///< by sample: its first rows in `frames_`
  std::vector<std::uint8_t> good_;                     ///< by sample
  bool all_good_ = true;
  std::vector<engine::Device::Block> blocks_;
  PerStream<engine::Tensor> frames_;  ///< (Σ frames, dim)
  PerStream<engine::Tensor> inputs_;  ///< for the largest batch
  engine::Device::Block directions_;
  std::array<Slot, 2> slots_;
  std::array<Slot, 2> chunks_;  ///< for the upload; freed afterwards
  PerStream<std::int64_t> next_frame_{};
  std::size_t next_chunk_ = 0;
  std::int64_t epoch_ = 0;
  std::int64_t next_batch_ = 0;
  bool active_ = false;
  std::vector<std::int64_t> kept_;
  engine::Batch batch_;
};

}  // namespace voca::data
