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
};

namespace cpu {
template <typename T>
void adamw(const AdamW<T>& args);
}  // namespace cpu

}  // namespace voca::kernels
