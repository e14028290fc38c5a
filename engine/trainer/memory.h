#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/core/context.h"
#include "engine/core/device.h"
#include "engine/core/model.h"
#include "engine/core/parameters.h"

namespace voca::engine {

/// What a run does, as far as its memory depends on it. At least one of the batches is not 0.
struct MemoryRequest {
  DType compute_type = DType::kF32;
  std::int64_t train_batch = 0;  ///< most samples of a training batch; 0: weights only, no training
  std::int64_t eval_batch = 0;   ///< most samples of an evaluation batch; 0: no evaluation
  std::int64_t grad_accum = 1;   ///< batches a step
  int world_size = 1;            ///< ranks, each with a training batch of its own
  /// Of a compute type of 16 bits: gradients are added up in fp32 (ParameterStore::gradient_sums).
  bool wide_sums = false;
};

/// The device memory a run takes, batches in flight apart (their source owns them), before any of it is
/// taken.
struct MemoryPlan {
  std::vector<MemoryLine> lines;        ///< what a Workspace allocates: the same names, bytes and order
  std::vector<MemoryLine> arena_lines;  ///< what is live in the "activations" line at its peak
  [[nodiscard]] std::size_t bytes() const;
};
/// On a GPU the library of products has its workspace there too: that of `backend.products`, or what ours
/// takes where that is null.
[[nodiscard]] MemoryPlan plan_memory(const Model& model, const MemoryRequest& request,
                                     const Backend& backend = {});

/// The largest batch, for training and evaluation alike, that fits `bytes`; 0 when not even one sample does.
/// `source_bytes(batch)` is what the batches in flight take beside the plan; null for nothing. Memory must
/// grow with the batch. Never more than `limit`.
[[nodiscard]] std::int64_t largest_batch(const Model& model, const MemoryRequest& request, std::size_t bytes,
                                         const std::function<std::size_t(std::int64_t)>& source_bytes,
                                         std::int64_t limit = std::int64_t{1} << 20,
                                         const Backend& backend = {});

/// What does not fit.
struct OutOfMemory {
  std::string where;              ///< "cpu", "cuda", "host"
  std::vector<MemoryLine> lines;  ///< all that is needed there
  FreeMemory free;                ///< all that there is
  int ranks = 1;                  ///< that share it and need as much each
  std::int64_t batch = 0;
  std::int64_t largest = 0;  ///< batch that fits; 0: none
};
/// Throws Error (exit 74): a line with what is needed, what there is and the largest batch that fits, and the
/// table of what takes how much.
[[noreturn]] void throw_out_of_memory(const OutOfMemory& what);

/// All the device memory of a run, taken at once when it is made: parameters with their gradients and
/// moments, one arena that training and evaluation share, and the places where passes leave their results. On
/// a GPU the algorithms of its matrix products are chosen here.
class Workspace {
 public:
  /// Throws Error (exit 74) when it does not fit, with the table of what it needs and the largest batch that
  /// would fit.
  Workspace(const Model& model, const MemoryRequest& request, Device& device);
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  [[nodiscard]] ParameterStore& parameters() { return parameters_; }
  [[nodiscard]] const ParameterStore& parameters() const { return parameters_; }
  [[nodiscard]] Context context() {
    return {.arena = arena_, .stream = device_.compute_stream(), .products = device_.products()};
  }
  [[nodiscard]] Device& device() const { return device_; }
  [[nodiscard]] const MemoryRequest& request() const { return request_; }

  /// (size, outputs), compute type; of the pass last run.
  [[nodiscard]] Tensor logits(std::int64_t size) const;
  /// (size), statistics type; of the prediction last run.
  [[nodiscard]] Tensor row_losses(std::int64_t size) const;
  /// (grad_accum, kLossCount), statistics type; of the batches of the step last run.
  [[nodiscard]] const Tensor& losses() const { return losses_; }
  /// (kLossCount), of one of them.
  [[nodiscard]] Tensor losses(std::int64_t batch_in_step) const;
  /// (1), statistics type.
  [[nodiscard]] const Tensor& gradient_norm() const { return gradient_norm_; }
  /// kernels::OptimizerState as bytes.
  [[nodiscard]] const Tensor& optimizer_state() const { return optimizer_state_; }

 private:
  MemoryRequest request_;
  Device& device_;
  ParameterStore parameters_;
  std::vector<Device::Block> blocks_;
  Arena arena_;
  Tensor logits_;
  Tensor row_losses_;
  Tensor losses_;
  Tensor gradient_norm_;
  Tensor optimizer_state_;
};

}  // namespace voca::engine
