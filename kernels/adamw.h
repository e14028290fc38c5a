#pragma once

#include "kernels/types.h"

// AdamW (Loshchilov, Hutter 2019, arXiv:1711.05101) over flat memory, in torch.optim.AdamW's order of
// operations. With g the gradient times min(1, max_norm / (norm / loss_scale + 1e-6)) / loss_scale (clipping
// as torch.nn.utils.clip_grad_norm_; norm is that of the buffer as it lies, loss scale included):
//
//   w ← w · (1 − lr · weight_decay)
//   m ← m + (1 − β₁)(g − m),   v ← β₂ v + (1 − β₂) g²
//   w ← w − (lr / (1 − β₁ᵗ)) · m / (sqrt(v) / sqrt(1 − β₂ᵗ) + eps)
//
// A step whose norm or losses are not finite leaves w, m, v and t as they are. The loss scale moves as
// torch.cuda.amp.GradScaler's does, but never below 1.

namespace voca::kernels {

/// What became of a step.
enum class StepOutcome : std::int32_t {
  kUpdated = 0,
  kOverflow = 1,   ///< the scaled gradients were not finite, the losses were: left out, the scale is halved
  kNotFinite = 2,  ///< a loss, or a gradient that was not scaled up, was not finite: left out
};

/// What the optimiser keeps in the device's memory from step to step, so that no step waits for the host.
struct OptimizerState {
  double lr = 0;                ///< of the coming step
  std::int64_t steps = 0;       ///< updates so far: t is one more in the coming one
  float loss_scale = 1;         ///< the gradients of the coming step are multiplied by it
  std::int32_t good_steps = 0;  ///< updates since loss_scale last changed
  double norm = 0;              ///< of the last step's gradient, without its loss scale, before clipping
  StepOutcome outcome = StepOutcome::kUpdated;  ///< of the last step
};

/// Takes one step's outcome into the state: counts an update, moves the loss scale. With `growth_interval` 0
/// the loss scale stays as it is.
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

/// G is the gradient's type: T, or Stat<T>.
template <typename T, typename G = T>
struct AdamW {
  std::int64_t elements = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  double max_norm = 0;               ///< 0 switches clipping off
  std::int64_t growth_interval = 0;  ///< so many updates in a row double the loss scale; 0 keeps it fixed
  OptimizerState* state = nullptr;   ///< (1), updated
  const Stat<T>* norm = nullptr;     ///< (1), of kernels/gradient_norm.h
  const Stat<T>* losses = nullptr;   ///< (loss_count): the step is left out unless all are finite
  std::int64_t loss_count = 0;
  const G* gradient = nullptr;    ///< (elements)
  Stat<T>* master = nullptr;      ///< (elements), updated in place
  Stat<T>* exp_avg = nullptr;     ///< m, (elements), updated in place
  Stat<T>* exp_avg_sq = nullptr;  ///< v, (elements), updated in place
  T* weights = nullptr;  ///< (elements), overwritten with the masters rounded to T; null where T is Stat<T>
  void* scratch = nullptr;  ///< cuda::adamw_scratch_bytes; the CPU needs none
};

namespace cpu {
template <typename T>
void adamw(const AdamW<T>& args);
}  // namespace cpu

/// float, bf16 and fp16, the last two with gradients in float too. `stream` is a cudaStream_t.
namespace cuda {
template <typename T, typename G>
void adamw(const AdamW<T, G>& args, void* stream);
[[nodiscard]] std::size_t adamw_scratch_bytes();
}  // namespace cuda

}  // namespace voca::kernels
