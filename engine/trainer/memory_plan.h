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

/// Parameters of a run that determine its memory. At least one of the batch sizes is not 0.
struct MemoryRequest {
  DType compute_type = DType::kF32;
  std::int64_t train_batch = 0;  ///< maximum training batch; 0: weights only, no training
  std::int64_t eval_batch = 0;   ///< maximum evaluation batch; 0: no evaluation
  std::int64_t grad_accum = 1;   ///< batches per step
  int world_size = 1;            ///< ranks, each with its own training batch
  /// For 16-bit compute types: accumulate gradients in fp32 (ParameterStore::gradient_sums).
  bool wide_sums = false;
};

/// Device memory that a run will allocate, excluding batches in flight, which their source owns.
struct MemoryPlan {
  std::vector<MemoryLine> lines;        ///< allocations of a Workspace: same names, bytes and order
  std::vector<MemoryLine> arena_lines;  ///< live allocations in the "activations" line at its peak
  [[nodiscard]] std::size_t bytes() const { return total_bytes(lines); }
};
/// On a GPU the plan includes the GEMM library's workspace: that of `backend.gemm_library`, or the engine's
/// default if it is null.
[[nodiscard]] MemoryPlan plan_memory(const Model& model, const MemoryRequest& request,
                                     const Backend& backend = {});

/// Largest batch size, for both training and evaluation, that fits `bytes`, but at most `limit`; 0 if a
/// single sample does not fit. `source_bytes(batch)` is the memory of the batches in flight, in addition to
/// the plan; null for none. Memory must grow with the batch size.
[[nodiscard]] std::int64_t largest_batch(const Model& model, const MemoryRequest& request, std::size_t bytes,
                                         const std::function<std::size_t(std::int64_t)>& source_bytes,
                                         std::int64_t limit = std::int64_t{1} << 20,
                                         const Backend& backend = {});

/// An allocation that does not fit.
struct OutOfMemory {
  std::string where;              ///< "cpu", "cuda", "host"
  std::vector<MemoryLine> lines;  ///< all memory needed there
  FreeMemory free;                ///< all memory available there
  int ranks = 1;                  ///< ranks that share the memory, each needing as much
  std::int64_t batch = 0;
  std::int64_t largest = 0;  ///< largest batch that fits; 0: none
};
/// Throws Error (exit 74) with a line that names the memory needed, the memory available and the largest
/// batch that fits, and a table of the allocations.
[[noreturn]] void throw_out_of_memory(const OutOfMemory& what);

/// Results that a run keeps outside the arena; empty where the run does not need one. Workspace says their
/// shapes.
struct RunResults {
  TensorList outputs;
  Tensor row_losses;
  Tensor losses;
  Tensor gradient_norm;
  Tensor optimizer_state;

  /// All that are not empty.
  [[nodiscard]] std::vector<Tensor*> tensors();
};

/// All device memory of a run, allocated in the constructor: parameters with gradients and moments, one arena
/// shared by training and evaluation, and the buffers for results. On a GPU the constructor also selects the
/// GEMM algorithms.
class Workspace {
 public:
  /// Throws Error (exit 74) when the memory does not fit, with the table of allocations and the largest batch
  /// that would fit.
  Workspace(const Model& model, const MemoryRequest& request, Device& device);
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  [[nodiscard]] ParameterStore& parameters() { return parameters_; }
  [[nodiscard]] const ParameterStore& parameters() const { return parameters_; }
  [[nodiscard]] Context context() {
    return {.arena = arena_, .stream = device_.compute_stream(), .gemm_library = device_.gemm_library()};
  }
  [[nodiscard]] Device& device() const { return device_; }
  [[nodiscard]] const MemoryRequest& request() const { return request_; }

  /// The model's outputs for `size` samples; written by the last pass.
  [[nodiscard]] TensorList outputs(std::int64_t size) const;
  /// (size), statistics type; written by the last prediction.
  [[nodiscard]] Tensor row_losses(std::int64_t size) const;
  /// (grad_accum, number of losses), statistics type; one row per batch of the last step.
  [[nodiscard]] const Tensor& losses() const { return results_.losses; }
  /// (number of losses); one row of losses().
  [[nodiscard]] Tensor losses(std::int64_t batch_in_step) const;
  /// (1), statistics type.
  [[nodiscard]] const Tensor& gradient_norm() const { return results_.gradient_norm; }
  /// kernels::OptimizerState as bytes.
  [[nodiscard]] const Tensor& optimizer_state() const { return results_.optimizer_state; }

 private:
  MemoryRequest request_;
  Device& device_;
  ParameterStore parameters_;
  std::vector<Device::Block> blocks_;
  Arena arena_;
  RunResults results_;
};

}  // namespace voca::engine
