#include "engine/trainer/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "engine/host_tensor.h"
#include "engine/ops.h"
#include "engine/trainer/read_back.h"

namespace voca::engine {

void Optimizer::clear_gradients() {
  Context context = workspace_.context();
  ops::fill(context, 0.0, workspace_.parameters().gradients());
}

double Optimizer::measure_norm() {
  Context context = workspace_.context();
  ops::gradient_norm(context, workspace_.parameters().gradients(), workspace_.gradient_norm());
  return read_back(HostTensor(workspace_.device(), workspace_.gradient_norm()).tensor(), 0);
}

void Optimizer::update(double lr) {
  Context context = workspace_.context();
  const ParameterStore& parameters = workspace_.parameters();
  ops::adamw(context, {.lr = lr,
                       .weight_decay = options_.weight_decay,
                       .step = ++steps_,
                       .gradient_scale = 1,
                       .max_norm = options_.max_grad_norm,
                       .norm = workspace_.gradient_norm(),
                       .gradient = parameters.gradients(),
                       .master = parameters.masters(),
                       .exp_avg = parameters.exp_avgs(),
                       .exp_avg_sq = parameters.exp_avg_sqs(),
                       .weights = parameters.weights()});
}

std::string first_non_finite_gradient(const ParameterStore& parameters) {
  std::vector<ParameterId> order(parameters.specs().size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](ParameterId a, ParameterId b) {
    return parameters.specs()[static_cast<std::size_t>(a)].backward_rank <
           parameters.specs()[static_cast<std::size_t>(b)].backward_rank;
  });
  const HostTensor gradients(parameters.device(), parameters.gradients());
  for (const ParameterId id : order) {
    const Tensor gradient = parameters.slice(gradients.tensor(), id);
    for (std::int64_t i = 0; i < gradient.elements(); ++i) {
      if (!std::isfinite(read_back(gradient, i)))
        return parameters.specs()[static_cast<std::size_t>(id)].name;
    }
  }
  return {};
}

}  // namespace voca::engine
