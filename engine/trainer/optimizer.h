#pragma once

#include <cstdint>
#include <string>

#include "engine/trainer/memory.h"
#include "kernels/adamw.h"

namespace voca::engine {

/// AdamW with betas (0.9, 0.999) and eps 1e-8.
struct OptimizerOptions {
  double weight_decay = 1e-4;  ///< decoupled, on every parameter
  double max_grad_norm = 1.0;  ///< of the global L2 norm; 0 switches clipping off
};

/// fp16's loss scale: where it starts, and after how many updates in a row it doubles.
inline constexpr float kFirstLossScale = 65536.0F;
inline constexpr std::int64_t kLossScaleGrowthInterval = 2000;

/// AdamW over the flat buffers of a workspace, all of it queued: nothing here waits for the device, and a
/// step whose gradients or losses are not finite is left out there. A step is: start_step(), backward passes
/// with gradient_scale(), update(). Where the compute type is fp16 the loss is scaled, dynamically.
class Optimizer {
 public:
  /// The state of a fresh run.
  Optimizer(const OptimizerOptions& options, Workspace& workspace);

  /// Zeroes gradients (not their sums, which GradientSums overwrites) and losses.
  void start_step();
  /// Of a batch that is this share of its step.
  [[nodiscard]] GradientScale gradient_scale(double share) const;
  /// The global L2 norm of the accumulated gradients, loss scale included, before clipping: workspace's
  /// gradient_norm().
  void measure_norm();
  /// Clips by that norm and updates weights and moments.
  void update(double lr);

  /// As the device has it; waits for what is queued.
  [[nodiscard]] kernels::OptimizerState state() const;
  /// `loss_scale` is kept only where there is one.
  void set_state(const kernels::OptimizerState& state);

 private:
  [[nodiscard]] bool scales_loss() const { return workspace_.request().compute_type == DType::kF16; }

  /// Learning rates on their way to the device; one more than steps that may be queued.
  static constexpr std::size_t kRatesInFlight = 4;

  OptimizerOptions options_;
  Workspace& workspace_;
  Device::PinnedBlock rates_;
  std::size_t next_rate_ = 0;
};

/// The name of the first parameter, in the order backward finishes them, whose gradient has a NaN or an
/// infinity; empty when all are finite.
[[nodiscard]] std::string first_non_finite_gradient(const ParameterStore& parameters);

}  // namespace voca::engine
