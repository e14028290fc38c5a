#pragma once

#include <cmath>

#include "kernels/types.h"

// AdamW (Loshchilov, Hutter 2019, arXiv:1711.05101) over flat memory, in the order of operations of
// torch.optim.AdamW. g = gradient · min(1, max_norm / (norm / loss_scale + 1e-6)) / loss_scale, which clips
// like torch.nn.utils.clip_grad_norm_; norm is the norm of the gradient buffer with the loss scale still
// applied.
//
//   w ← w · (1 − lr · weight_decay)
//   m ← m + (1 − β₁)(g − m),   v ← β₂ v + (1 − β₂) g²
//   w ← w − (lr / (1 − β₁ᵗ)) · m / (sqrt(v) / sqrt(1 − β₂ᵗ) + eps)
//
// A step whose norm or losses are not finite leaves w, m, v and t unchanged. The loss scale is adjusted as in
// torch.cuda.amp.GradScaler, but never falls below 1.

namespace voca::kernels {

/// Outcome of an optimiser step.
enum class StepOutcome : std::int32_t {
  kUpdated = 0,
  kOverflow = 1,   ///< skipped, loss scale halved: finite losses, non-finite scaled gradients
  kNotFinite = 2,  ///< skipped: a loss or an unscaled gradient was not finite
};

/// Optimiser state that stays in device memory between steps, so that no step waits for the host.
struct OptimizerState {
  double lr = 0;                                ///< learning rate of the next step
  std::int64_t steps = 0;                       ///< updates so far; the next update has t = steps + 1
  float loss_scale = 1;                         ///< factor of the gradients of the next step
  std::int32_t good_steps = 0;                  ///< updates since loss_scale last changed
  double norm = 0;                              ///< gradient norm of the last step, unscaled, before clipping
  StepOutcome outcome = StepOutcome::kUpdated;  ///< outcome of the last step
};

/// Records the outcome of one step in `state`: counts the update and adjusts the loss scale. If
/// `growth_interval` is 0, the loss scale is fixed.
constexpr StepOutcome advance(OptimizerState& state, std::int64_t growth_interval, bool finite_norm,
                              bool finite_losses) {
  if (finite_norm && finite_losses) {
    ++state.steps;
    if (growth_interval > 0 && ++state.good_steps >= growth_interval) {
      state.good_steps = 0;
      state.loss_scale *= 2.0F;
    }
    state.outcome = StepOutcome::kUpdated;
  } else if (finite_losses && growth_interval > 0 && state.loss_scale > 1.0F) {
    state.good_steps = 0;
    state.loss_scale = state.loss_scale > 2.0F ? state.loss_scale * 0.5F : 1.0F;
    state.outcome = StepOutcome::kOverflow;
  } else {
    state.outcome = StepOutcome::kNotFinite;
  }
  return state.outcome;
}

/// The numbers of an AdamW run, beside the learning rate. The defaults are torch.optim.AdamW's, but for the
/// decay.
struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;  ///< decoupled, on every parameter
};

/// Factors that the updates of all elements share.
template <typename S>
struct AdamWFactors {
  S gradient;  ///< unscaling and clipping factor
  S decay;     ///< 1 − lr · weight_decay
  S one_minus_beta1;
  S beta2;
  S one_minus_beta2;
  S step_size;              ///< lr / (1 − β₁ᵗ)
  S sqrt_bias_correction2;  ///< sqrt(1 − β₂ᵗ)
  S eps;
};

/// The factors of an update, computed in double, from the state with t = state.steps.
template <typename S>
[[nodiscard]] VOCA_HOST_DEVICE AdamWFactors<S> adamw_factors(const AdamWOptions& options, double max_norm,
                                                             const OptimizerState& state, double loss_scale) {
  double gradient = 1.0 / loss_scale;
  if (max_norm > 0) {
    const double clip = max_norm / (state.norm + 1e-6);
    if (clip < 1.0) gradient *= clip;
  }
  const auto t = static_cast<double>(state.steps);
  return {.gradient = static_cast<S>(gradient),
          .decay = static_cast<S>(1.0 - state.lr * options.weight_decay),
          .one_minus_beta1 = static_cast<S>(1.0 - options.beta1),
          .beta2 = static_cast<S>(options.beta2),
          .one_minus_beta2 = static_cast<S>(1.0 - options.beta2),
          .step_size = static_cast<S>(state.lr / (1.0 - std::pow(options.beta1, t))),
          .sqrt_bias_correction2 = static_cast<S>(std::sqrt(1.0 - std::pow(options.beta2, t))),
          .eps = static_cast<S>(options.eps)};
}

/// Arguments of adamw(). G is the type of the gradient: T or Stat<T>.
template <typename T, typename G = T>
struct AdamW {
  std::int64_t elements = 0;
  AdamWOptions options{};
  double max_norm = 0;               ///< 0 switches clipping off
  std::int64_t growth_interval = 0;  ///< consecutive updates after which the loss scale doubles; 0 fixes it
  OptimizerState* state = nullptr;   ///< (1), updated
  const Stat<T>* norm = nullptr;     ///< (1), output of gradient_norm()
  const Stat<T>* losses = nullptr;   ///< (loss_count); the step is skipped unless all are finite
  std::int64_t loss_count = 0;
  const G* gradient = nullptr;    ///< (elements)
  Stat<T>* master = nullptr;      ///< (elements), updated in place
  Stat<T>* exp_avg = nullptr;     ///< m, (elements), updated in place
  Stat<T>* exp_avg_sq = nullptr;  ///< v, (elements), updated in place
  T* weights = nullptr;     ///< (elements), overwritten with the masters rounded to T; null if T is Stat<T>
  void* scratch = nullptr;  ///< scratch_bytes
};

template <typename T>
void adamw(Cpu, const AdamW<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cpu, const AdamW<T>& /*args*/) {
  return 0;
}

/// The gradients of bf16 and fp16 weights may be float.
template <typename T, typename G>
void adamw(Cuda, const AdamW<T, G>& args);
template <typename T, typename G>
[[nodiscard]] std::size_t scratch_bytes(Cuda, const AdamW<T, G>& args);

}  // namespace voca::kernels
