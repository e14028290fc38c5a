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

/// What a model takes of each sample: the shapes of a batch of one, the empty shape for an input left out.
using SampleShapes = std::array<Shape, kMaxInputs>;

/// The batches of a source of host memory, on a GPU and in the compute type. While a step computes on one
/// batch the next is copied on the copy stream, from pinned memory without the host's help; it is rounded to
/// 16 bits on the GPU. The same samples in the same order: bad samples too, which the source may find a batch
/// ahead.
class StagedBatchSource final : public BatchSource {
 public:
  /// `source` gives float32; the device outlives this.
  StagedBatchSource(std::unique_ptr<BatchSource> source, Device& device, const SampleShapes& inputs,
                    DType compute_type);
  ~StagedBatchSource() override;

  /// Device memory that one takes.
  [[nodiscard]] static std::size_t device_bytes(const SampleShapes& inputs, DType compute_type,
                                                std::int64_t batch_size);

  [[nodiscard]] std::int64_t samples_per_epoch() const override { return source_->samples_per_epoch(); }
  [[nodiscard]] std::int64_t batches_per_epoch() const override { return source_->batches_per_epoch(); }
  [[nodiscard]] std::int64_t max_batch_size() const override { return source_->max_batch_size(); }
  void start_epoch(std::int64_t epoch, std::int64_t first_batch) override;
  /// What was queued on the compute stream before the call may use the batch before.
  const Batch* next() override;
  [[nodiscard]] std::int64_t bad_samples() const override { return source_->bad_samples(); }

 private:
  struct Slot {
    std::array<Device::Block, kMaxInputs> inputs;  ///< float32
    Device::Block labels;
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
  Arena no_memory_;  // of a context for operations that take none
  std::array<Slot, 2> slots_;
  std::array<Device::Block, kMaxInputs> rounded_;  // inputs in 16 bits; unused in float32
  std::size_t front_ = 0;                          // the slot that next() gives
};

}  // namespace voca::engine
