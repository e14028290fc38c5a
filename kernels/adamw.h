#pragma once

#include "kernels/types.h"

// AdamW (Loshchilov, Hutter 2019, arXiv:1711.05101) over flat memory, in torch.optim.AdamW's order of
// operations. With g the gradient times gradient_scale · min(1, max_norm / (norm · gradient_scale + 1e-6))
// (clipping as torch.nn.utils.clip_grad_norm_; norm is that of the buffer as it lies, before gradient_scale):
//
//   w ← w · (1 − lr · weight_decay)
//   m ← m + (1 − β₁)(g − m),   v ← β₂ v + (1 − β₂) g²
//   w ← w − (lr / (1 − β₁ᵗ)) · m / (sqrt(v) / sqrt(1 − β₂ᵗ) + eps)

namespace voca::kernels {

/// What a GPU keeps in its own memory from step to step, so that no step waits for the host.
struct OptimizerState {
  double lr = 0;                ///< of the coming step
  std::int64_t steps = 0;       ///< updates so far: t is one more in the coming one
  float loss_scale = 1;         ///< the gradients of the coming step are multiplied by it
  std::int32_t good_steps = 0;  ///< since loss_scale last changed
  std::int64_t skipped = 0;     ///< updates left out because the gradients had overflowed
  std::int32_t overflow = 0;    ///< 1 where the last update was one of them
};

template <typename T>
struct AdamW {
  std::int64_t elements = 0;
  double lr = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  std::int64_t step = 1;          ///< t, counted from 1
  double gradient_scale = 1;      ///< 1 / loss scale
  double max_norm = 0;            ///< 0 switches clipping off
  const Stat<T>* norm = nullptr;  ///< (1), of kernels/gradient_norm.h; may be null without clipping
  const T* gradient = nullptr;    ///< (elements)
  Stat<T>* master = nullptr;      ///< (elements), updated in place
  Stat<T>* exp_avg = nullptr;     ///< m, (elements), updated in place
  Stat<T>* exp_avg_sq = nullptr;  ///< v, (elements), updated in place
  T* weights = nullptr;  ///< (elements), overwritten with the masters rounded to T; null where T is Stat<T>

  // The rest is for a GPU.
  OptimizerState* state = nullptr;   ///< in place of lr and step, gradient_scale divided by its loss scale;
                                     ///< null to take them from here. Updated
  std::int64_t growth_interval = 0;  ///< with state: a norm that is not finite skips the update and halves
                                     ///< the loss scale, so many good steps double it; 0 switches both off
  void* scratch = nullptr;           ///< cuda::adamw_scratch_bytes
};

namespace cpu {
template <typename T>
void adamw(const AdamW<T>& args);
}  // namespace cpu

/// float, bf16 and fp16. `stream` is a cudaStream_t.
namespace cuda {
template <typename T>
void adamw(const AdamW<T>& args, void* stream);
[[nodiscard]] std::size_t adamw_scratch_bytes();
}  // namespace cuda

}  // namespace voca::kernels
