#pragma once

#include <cstdint>

#include "engine/core/arena.h"
#include "engine/core/matrix_products.h"
#include "engine/core/tensor.h"
#include "kernels/philox.h"

namespace voca::engine {

class Communicator;

/// Told during a backward pass how much of the flat gradient buffer is final.
class GradientListener {
 public:
  GradientListener() = default;
  GradientListener(const GradientListener&) = delete;
  GradientListener& operator=(const GradientListener&) = delete;
  virtual ~GradientListener() = default;
  /// The first `elements` of ParameterStore::gradients() are final once the work queued on the context's
  /// stream is done. Grows from call to call; the last one of a pass is the whole buffer.
  virtual void final_until(std::int64_t elements) = 0;
};

/// What an operation runs with: where, in which order (stream), and the memory it may take.
struct Context {
  Arena& arena;
  void* stream = nullptr;              ///< the backend's stream; the CPU has none
  MatrixProducts* products = nullptr;  ///< of a GPU; null on the CPU, whose products are kernels
  /// Of the pass whose gradients are complete: the last micro-batch of a step. Null tells no one.
  GradientListener* gradients = nullptr;
  /// The job's ranks, for a loss that spans them; null in a world of one.
  Communicator* communicator = nullptr;

  [[nodiscard]] DeviceKind device() const { return arena.device(); }
  [[nodiscard]] DeviceKind backend() const { return arena.backend(); }
  /// Activations of a step: unspecified content, given back by the caller's ArenaScope.
  [[nodiscard]] Tensor allocate(const char* name, const Shape& shape, DType dtype) {
    return arena.allocate(name, shape, dtype);
  }
};

/// What the gradient of a loss is multiplied by: `factor` (the loss's weight, a batch's share of the step)
/// and, where it is given, the loss scale, (1) float32 on the context's device.
struct GradientScale {
  double factor = 1;
  Tensor loss_scale{};

  [[nodiscard]] GradientScale times(double weight) const { return {factor * weight, loss_scale}; }
};

/// The random state of one forward and backward pass. Masks depend on it and on nothing else.
struct StepRandom {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;         ///< counts micro-batches from the start of the run
  std::int64_t first_sample = 0;  ///< position of the batch's first sample in the global batch

  /// The mask of one dropout site for arrays with `elements_per_sample` decisions a sample.
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
