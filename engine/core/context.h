#pragma once

#include <cstdint>

#include "engine/core/arena.h"
#include "engine/core/gemm_library.h"
#include "engine/core/tensor.h"
#include "kernels/philox.h"

namespace voca::engine {

class Communicator;

/// Notified during a backward pass as gradients in the flat buffer become final.
class GradientListener {
 public:
  GradientListener() = default;
  GradientListener(const GradientListener&) = delete;
  GradientListener& operator=(const GradientListener&) = delete;
  virtual ~GradientListener() = default;
  /// The first `elements` of ParameterStore::gradients() are final once the work queued on the context's
  /// stream has finished. Increases from call to call; the last call of a pass covers the whole buffer.
  virtual void final_until(std::int64_t elements) = 0;
};

/// Execution context of an operation: device, stream and memory.
struct Context {
  Arena& arena;
  Stream stream = nullptr;              ///< the backend's stream; null on the CPU
  GemmLibrary* gemm_library = nullptr;  ///< on a GPU; null on the CPU, which has its own kernels
  /// Set in the pass that completes the gradients: a step's last micro-batch. Null: no notification.
  GradientListener* gradients = nullptr;
  /// Communicator of the job, for a loss that spans ranks; null in a world of one.
  Communicator* communicator = nullptr;

  [[nodiscard]] DeviceKind device() const { return arena.device(); }
  [[nodiscard]] DeviceKind backend() const { return arena.backend(); }
  /// Whether there is no memory: operations check their arguments, take their scratch and compute nothing.
  [[nodiscard]] bool is_dry_run() const { return device() == DeviceKind::kMeta; }
  /// Allocates an activation of unspecified content, released by the caller's ArenaScope.
  [[nodiscard]] Tensor allocate(const char* name, const Shape& shape, DType dtype) {
    return arena.allocate(name, shape, dtype);
  }
};

/// Factor on the gradient of a loss: `factor` (the loss's weight, a batch's share of the step) times the loss
/// scale, if given, (1) float32 on the context's device.
struct GradientScale {
  double factor = 1;
  Tensor loss_scale{};

  [[nodiscard]] GradientScale times(double weight) const { return {factor * weight, loss_scale}; }
};

/// Random state of one forward and backward pass. Dropout masks depend on nothing else.
struct StepRandom {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;         ///< counts micro-batches from the start of the run
  std::int64_t first_sample = 0;  ///< position of the batch's first sample in the global batch

  /// Mask of one dropout site for arrays with `elements_per_sample` elements per sample.
  [[nodiscard]] kernels::Dropout dropout(std::uint32_t site, double p,
                                         std::int64_t elements_per_sample) const {
    return {.seed = seed,
            .step = step,
            .site = site,
            .threshold = kernels::dropout_threshold(p),
            .first_element =
                static_cast<std::uint64_t>(first_sample) * static_cast<std::uint64_t>(elements_per_sample)};
  }
};

}  // namespace voca::engine
