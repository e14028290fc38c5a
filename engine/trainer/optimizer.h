#pragma once

#include <cstdint>
#include <string>

#include "engine/trainer/memory.h"

namespace voca::engine {

/// AdamW with betas (0.9, 0.999) and eps 1e-8.
struct OptimizerOptions {
  double weight_decay = 1e-4;  ///< decoupled, on every parameter
  double max_grad_norm = 1.0;  ///< of the global L2 norm; 0 switches clipping off
};

/// AdamW over the flat buffers of a workspace. A step is: clear_gradients(), backward passes, measure_norm(),
/// and update() when the norm is finite.
class Optimizer {
 public:
  Optimizer(const OptimizerOptions& options, Workspace& workspace)
      : options_(options), workspace_(workspace) {}

  void clear_gradients();
  /// The global L2 norm of the accumulated gradients, before clipping, in one reduction; NaN or infinite when
  /// one of them is.
  [[nodiscard]] double measure_norm();
  /// Clips by the norm last measured, which must be finite, and updates weights and moments.
  void update(double lr);

  /// AdamW's t: updates applied.
  [[nodiscard]] std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }

 private:
  OptimizerOptions options_;
  Workspace& workspace_;
  std::int64_t steps_ = 0;
};

/// The name of the first parameter, in the order backward finishes them, whose gradient has a NaN or an
/// infinity; empty when all are finite.
[[nodiscard]] std::string first_non_finite_gradient(const ParameterStore& parameters);

}  // namespace voca::engine
