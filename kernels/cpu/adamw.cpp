#include "kernels/adamw.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/chunks.h"

namespace voca::kernels {

using namespace cpu;

namespace {

template <typename T>
void update(const AdamW<T>& args, const AdamWFactors<Stat<T>>& f, std::int64_t begin, std::int64_t end) {
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
  args.state->norm = static_cast<double>(args.norm[0]) / loss_scale;
  const bool finite_losses = std::all_of(args.losses, args.losses + args.loss_count, finite);
  if (advance(*args.state, args.growth_interval, finite(args.norm[0]), finite_losses) !=
      StepOutcome::kUpdated) {
    return;
  }
  const auto f = adamw_factors<Stat<T>>(args.options, args.max_norm, *args.state, loss_scale);
  for_chunks(args.elements, kChunkElements,
             [&](std::int64_t begin, std::int64_t end) { update(args, f, begin, end); });
}

#define VOCA_INSTANTIATE(T) template void adamw(Cpu, const AdamW<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
