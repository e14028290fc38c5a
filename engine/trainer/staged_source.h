#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "engine/core/arena.h"
#include "engine/core/batch.h"
#include "engine/core/device.h"

namespace voca::engine {

/// Copies a source's host batches to a GPU and converts them to the compute type. While a step computes on
/// one batch, the next is copied asynchronously on the copy stream, from pinned memory; rounding to 16 bits
/// runs on the GPU. Samples and their order are those of the source; bad samples too, which the source may
/// find one batch ahead.
class StagedBatchSource final : public BatchSource {
 public:
  /// `source` must return what `spec` says, its inputs in float32, in the same order; `device` must outlive
  /// this object.
  StagedBatchSource(std::unique_ptr<BatchSource> source, Device& device, const BatchSpec& spec,
                    DType compute_type);
  ~StagedBatchSource() override;

  /// Device memory of a staged source, in bytes.
  [[nodiscard]] static std::size_t device_bytes(const BatchSpec& spec, DType compute_type,
                                                std::int64_t batch_size);

  [[nodiscard]] std::int64_t samples_per_epoch() const override { return source_->samples_per_epoch(); }
  [[nodiscard]] std::int64_t batches_per_epoch() const override { return source_->batches_per_epoch(); }
  [[nodiscard]] std::int64_t max_batch_size() const override { return source_->max_batch_size(); }
  void start_epoch(std::int64_t epoch, std::int64_t first_batch) override;
  /// Work queued on the compute stream before this call may still use the previous batch.
  const Batch* next() override;
  [[nodiscard]] std::int64_t bad_samples() const override { return source_->bad_samples(); }

 private:
  struct Slot {
    std::vector<Device::Block> inputs;  ///< float32
    std::vector<Device::Block> targets;
    std::vector<std::int64_t> samples;
    Batch batch;
    bool filled = false;
    std::exception_ptr failure;
    Device::Event copied;
    Device::Event consumed;
  };
  void stage(Slot& slot);
  void round(Slot& slot);

  std::unique_ptr<BatchSource> source_;
  Device& device_;
  DType compute_type_;
  Arena no_memory_;  // for the contexts of operations that need no arena memory
  std::array<Slot, 2> slots_;
  std::vector<Device::Block> rounded_;  // 16-bit inputs; empty in float32
  std::size_t front_ = 0;               // slot that next() returns
};

}  // namespace voca::engine
