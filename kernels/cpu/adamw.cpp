#include "kernels/adamw.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/chunks.h"

namespace voca::kernels {

using namespace cpu;

namespace {

/// Factors that the updates of all elements share, computed in double.
template <typename S>
struct Factors {
  S gradient;  ///< unscaling and clipping factor
  S decay;     ///< 1 − lr · weight_decay
  S one_minus_beta1;
  S beta2;
  S one_minus_beta2;
  S step_size;              ///< lr / (1 − β₁ᵗ)
  S sqrt_bias_correction2;  ///< sqrt(1 − β₂ᵗ)
  S eps;
};

template <typename T>
Factors<Stat<T>> factors(const AdamW<T>& args, double norm, double loss_scale) {
  double gradient = 1.0 / loss_scale;
  if (args.max_norm > 0) {
    const double clip = args.max_norm / (norm + 1e-6);
    if (clip < 1.0) gradient *= clip;
  }
  using S = Stat<T>;
  const double lr = args.state->lr;
  const auto t = static_cast<double>(args.state->steps);
  return {.gradient = static_cast<S>(gradient),
          .decay = static_cast<S>(1.0 - lr * args.options.weight_decay),
          .one_minus_beta1 = static_cast<S>(1.0 - args.options.beta1),
          .beta2 = static_cast<S>(args.options.beta2),
          .one_minus_beta2 = static_cast<S>(1.0 - args.options.beta2),
          .step_size = static_cast<S>(lr / (1.0 - std::pow(args.options.beta1, t))),
          .sqrt_bias_correction2 = static_cast<S>(std::sqrt(1.0 - std::pow(args.options.beta2, t))),
          .eps = static_cast<S>(args.options.eps)};
}

template <typename T>
void update(const AdamW<T>& args, const Factors<Stat<T>>& f, std::int64_t begin, std::int64_t end) {
  using S = Stat<T>;
  const T* __restrict gradient = args.gradient;
  S* __restrict master = args.master;
  S* __restrict exp_avg = args.exp_avg;
  S* __restrict exp_avg_sq = args.exp_avg_sq;
  for (std::int64_t i = begin; i < end; ++i) {
    const S g = static_cast<S>(gradient[i]) * f.gradient;
    const S m = exp_avg[i] + f.one_minus_beta1 * (g - exp_avg[i]);
    const S v = f.beta2 * exp_avg_sq[i] + f.one_minus_beta2 * g * g;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    const S denominator = std::sqrt(v) / f.sqrt_bias_correction2 + f.eps;
    master[i] = master[i] * f.decay - f.step_size * (m / denominator);
  }
  if (args.weights == nullptr) return;
  for (std::int64_t i = begin; i < end; ++i) args.weights[i] = static_cast<T>(master[i]);
}

}  // namespace

template <typename T>
void adamw(Cpu, const AdamW<T>& args) {
  const auto finite = [](Stat<T> x) { return std::isfinite(x); };
  const auto loss_scale = static_cast<double>(args.state->loss_scale);  // advance() may change it
  const double norm = static_cast<double>(args.norm[0]) / loss_scale;
  args.state->norm = norm;
  const bool finite_losses = std::all_of(args.losses, args.losses + args.loss_count, finite);
  if (advance(*args.state, args.growth_interval, finite(args.norm[0]), finite_losses) !=
      StepOutcome::kUpdated) {
    return;
  }
  const Factors<Stat<T>> f = factors(args, norm, loss_scale);
  for_chunks(args.elements, kChunkElements,
             [&](std::int64_t begin, std::int64_t end) { update(args, f, begin, end); });
}

#define VOCA_INSTANTIATE(T) template void adamw(Cpu, const AdamW<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
