#pragma once

#include <cstdint>
#include <string>

#include "engine/trainer/memory_plan.h"
#include "kernels/adamw.h"

namespace voca::engine {

struct OptimizerOptions {
  kernels::AdamWOptions adamw{.weight_decay = 1e-4};
  double max_grad_norm = 1.0;  ///< clips the global L2 norm; 0 disables clipping
};

/// Dynamic loss scale of fp16: initial value, and number of consecutive updates after which it doubles.
inline constexpr float kFirstLossScale = 65536.0F;
inline constexpr std::int64_t kLossScaleGrowthInterval = 2000;

/// AdamW over the flat buffers of a workspace. All work is queued; nothing here waits for the device, which
/// skips a step with non-finite gradients or losses. Per step: start_step(), backward passes with
/// gradient_scale(), update(). In fp16 the loss is scaled dynamically.
class Optimizer {
 public:
  /// Starts in the state of a fresh run.
  Optimizer(const OptimizerOptions& options, Workspace& workspace);

  /// Zeroes losses and gradients (if the sums are separate, GradientSums zeroes the gradients).
  void start_step();
  /// Gradient scale for a batch that contributes the fraction `share` of its step.
  [[nodiscard]] GradientScale gradient_scale(double share) const;
  /// Writes the global L2 norm of the accumulated gradients, before clipping and including the loss scale, to
  /// the workspace's gradient_norm().
  void measure_norm();
  /// Clips by that norm and updates weights and moments.
  void update(double lr);

  /// State on the device; waits for queued work.
  [[nodiscard]] kernels::OptimizerState state() const;
  /// Loads a state; `loss_scale` is ignored unless the compute type is fp16.
  void set_state(const kernels::OptimizerState& state);

 private:
  [[nodiscard]] bool scales_loss() const { return workspace_.request().compute_type == DType::kF16; }

  /// Slots for learning rates in flight to the device; more than the steps that may be queued.
  static constexpr std::size_t kRatesInFlight = 4;

  OptimizerOptions options_;
  Workspace& workspace_;
  Device::PinnedBlock rates_;
  std::size_t next_rate_ = 0;
};

/// Name of the first parameter, in backward order, whose gradient contains a NaN or an infinity; empty if all
/// are finite.
[[nodiscard]] std::string first_non_finite_gradient(const ParameterStore& parameters);

}  // namespace voca::engine
