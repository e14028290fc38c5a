#pragma once

#include <cstdint>
#include <string>

#include "engine/trainer/memory.h"

namespace voca::engine {

struct OptimizerOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 1e-4;  ///< decoupled, on every parameter
  double max_grad_norm = 1.0;  ///< of the global L2 norm; 0 switches clipping off
};

/// AdamW over the flat buffers of a workspace, in the order: norm (one reduction) → skip unless finite → clip
/// → update.
class Optimizer {
 public:
  Optimizer(const OptimizerOptions& options, Workspace& workspace);

  struct Outcome {
    double grad_norm = 0;  ///< before clipping
    bool applied = false;  ///< false: the norm is not finite and nothing but the gradients was touched
  };
  /// One update with the gradients accumulated since the last clear_gradients().
  Outcome step(double lr);
  void clear_gradients();

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
