#include "engine/trainer/optimizer.h"

#include <cmath>
#include <cstddef>
#include <cstring>

#include "engine/core/element.h"
#include "engine/core/host_tensor.h"
#include "engine/ops/ops.h"

namespace voca::engine {

Optimizer::Optimizer(const OptimizerOptions& options, Workspace& workspace)
    : options_(options),
      workspace_(workspace),
      rates_(workspace.device().allocate_pinned("learning rates", kRatesInFlight * sizeof(double))) {
  set_state({.loss_scale = kFirstLossScale});
}

void Optimizer::start_step() {
  Context context = workspace_.context();
  const ParameterStore& parameters = workspace_.parameters();
  if (!parameters.sums_apart()) ops::fill(context, 0.0, parameters.gradients());
  ops::fill(context, 0.0, workspace_.losses());
}

GradientScale Optimizer::gradient_scale(double share) const {
  GradientScale scale{.factor = share};
  if (scales_loss()) {
    const Tensor& state = workspace_.optimizer_state();
    scale.loss_scale = {
        .data = static_cast<std::byte*>(state.data) + offsetof(kernels::OptimizerState, loss_scale),
        .shape = {1},
        .dtype = DType::kF32,
        .device = state.device,
        .name = "loss scale"};
  }
  return scale;
}

void Optimizer::measure_norm() {
  Context context = workspace_.context();
  ops::gradient_norm(context, workspace_.parameters().gradient_sums(), workspace_.gradient_norm());
}

void Optimizer::update(double lr) {
  const Tensor& state = workspace_.optimizer_state();
  Context context = workspace_.context();
  std::byte* const rate = rates_.data() + next_rate_ * sizeof lr;
  next_rate_ = (next_rate_ + 1) % kRatesInFlight;
  std::memcpy(rate, &lr, sizeof lr);
  workspace_.device().copy_to_device(
      static_cast<std::byte*>(state.data) + offsetof(kernels::OptimizerState, lr), rate, sizeof lr,
      context.stream);
  const ParameterStore& parameters = workspace_.parameters();
  ops::adamw(context, {.options = options_.adamw,
                       .max_norm = options_.max_grad_norm,
                       .growth_interval = scales_loss() ? kLossScaleGrowthInterval : 0,
                       .state = state,
                       .norm = workspace_.gradient_norm(),
                       .losses = workspace_.losses(),
                       .gradient = parameters.gradient_sums(),
                       .master = parameters.masters(),
                       .exp_avg = parameters.exp_avgs(),
                       .exp_avg_sq = parameters.exp_avg_sqs(),
                       .weights = parameters.weights()});
}

kernels::OptimizerState Optimizer::state() const {
  kernels::OptimizerState state;
  read_from(workspace_.device(), workspace_.optimizer_state(), &state, sizeof state);
  return state;
}

void Optimizer::set_state(const kernels::OptimizerState& state) {
  kernels::OptimizerState kept = state;
  if (!scales_loss()) kept.loss_scale = 1;
  write_to(workspace_.device(), workspace_.optimizer_state(), 0, &kept, sizeof kept);
}

std::string first_non_finite_gradient(const ParameterStore& parameters) {
  const HostTensor gradients(parameters.device(), parameters.gradient_sums());
  for (const ParameterId id : parameters.in_backward_order()) {
    const Tensor gradient = parameters.slice(gradients.tensor(), id);
    for (std::int64_t i = 0; i < gradient.elements(); ++i) {
      if (!std::isfinite(read_back(gradient, i)))
        return parameters.specs()[static_cast<std::size_t>(id)].name;
    }
  }
  return {};
}

}  // namespace voca::engine
