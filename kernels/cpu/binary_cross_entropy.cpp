#include "kernels/binary_cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace voca::kernels {

namespace {

double softplus(double x) {
  return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

/// Logistic function without cancellation or overflow at either end.
double sigmoid(double x) {
  const double e = std::exp(-std::abs(x));
  return (x >= 0 ? 1.0 : e) / (1.0 + e);
}

}  // namespace

template <typename T>
void binary_cross_entropy(Cpu, const BinaryCrossEntropy<T>& args) {
  const auto rows = static_cast<double>(args.rows);
  const double grad = scaled(args.grad, args.loss_scale);
  double total = 0;
  for (std::int64_t i = 0; i < args.rows; ++i) {
    const auto x = static_cast<double>(args.logits[i]);
    const bool known = args.labels[i] == 0 || args.labels[i] == 1;
    const double y = known ? args.labels[i] : std::numeric_limits<double>::quiet_NaN();
    const double target = y * (1.0 - args.smoothing) + args.smoothing / 2.0;
    const double positive = args.pos_weight * target;
    const double negative = 1.0 - target;
    const double loss = negative * softplus(x) + positive * softplus(-x);
    total += loss;
    if (args.row_losses != nullptr) args.row_losses[i] = static_cast<Stat<T>>(loss);
    if (args.dlogits != nullptr) {
      args.dlogits[i] = static_cast<T>(grad * (negative * sigmoid(x) - positive * sigmoid(-x)) / rows);
    }
  }
  args.loss[0] = static_cast<Stat<T>>(total / rows);
}

#define VOCA_INSTANTIATE(T) template void binary_cross_entropy(Cpu, const BinaryCrossEntropy<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
