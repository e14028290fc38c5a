#include "kernels/softmax_cross_entropy.h"

#include <cmath>
#include <limits>

namespace voca::kernels {

namespace {

/// Returns log Σ e^{x − maximum} and sets `maximum`.
template <typename T>
double log_sum(const T* x, std::int64_t classes, double* maximum) {
  auto m = static_cast<double>(x[0]);
  for (std::int64_t k = 1; k < classes; ++k) {
    if (static_cast<double>(x[k]) > m) m = static_cast<double>(x[k]);
  }
  double sum = 0;
  for (std::int64_t k = 0; k < classes; ++k) sum += std::exp(static_cast<double>(x[k]) - m);
  *maximum = m;
  return std::log(sum);
}

}  // namespace

template <typename T>
void softmax_cross_entropy(Cpu, const SoftmaxCrossEntropy<T>& args) {
  const auto rows = static_cast<double>(args.rows);
  const double grad = scaled(args.grad, args.loss_scale);
  const double smooth_share = args.smoothing / static_cast<double>(args.classes);
  double total = 0;
  for (std::int64_t i = 0; i < args.rows; ++i) {
    const T* x = args.logits + i * args.classes;
    const std::int32_t label = args.labels[i];
    const bool known = label >= 0 && label < args.classes;
    double maximum = 0;
    const double log_sum_shifted = log_sum(x, args.classes, &maximum);

    // Σ target_k (logsumexp − x_k): every term is ≥ 0, so there is no cancellation.
    double loss = std::numeric_limits<double>::quiet_NaN();
    if (known) {
      loss = log_sum_shifted + (1.0 - args.smoothing) * (maximum - static_cast<double>(x[label]));
    }
    if (smooth_share != 0) {
      double distance = 0;
      for (std::int64_t k = 0; k < args.classes; ++k) distance += maximum - static_cast<double>(x[k]);
      loss += smooth_share * distance;
    }
    total += loss;
    if (args.row_losses != nullptr) args.row_losses[i] = static_cast<Stat<T>>(loss);
    if (args.dlogits == nullptr) continue;
    const double unknown = known ? 0.0 : std::numeric_limits<double>::quiet_NaN();
    for (std::int64_t k = 0; k < args.classes; ++k) {
      const double probability = std::exp(static_cast<double>(x[k]) - maximum - log_sum_shifted);
      const double target = (k == label ? 1.0 - args.smoothing : 0.0) + smooth_share + unknown;
      args.dlogits[i * args.classes + k] = static_cast<T>(grad * (probability - target) / rows);
    }
  }
  args.loss[0] = static_cast<Stat<T>>(total / rows);
}

#define VOCA_INSTANTIATE(T) template void softmax_cross_entropy(Cpu, const SoftmaxCrossEntropy<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
