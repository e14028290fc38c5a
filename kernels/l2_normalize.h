#pragma once

#include "kernels/types.h"

// Scales each row to unit length like torch.nn.functional.normalize: z = x / max(‖x‖₂, eps).
// Backward: dx = (dz − z · Σ(dz · z)) / ‖x‖ if ‖x‖ > eps, else dz / eps.

namespace voca::kernels {

inline constexpr double kL2NormalizeEps = 1e-12;

template <typename T>
struct L2NormalizeForward {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const T* x = nullptr;     ///< (rows, columns)
  T* z = nullptr;           ///< (rows, columns), overwritten, saved for backward
  Stat<T>* norm = nullptr;  ///< (rows), ‖x‖, overwritten, saved for backward
};

template <typename T>
struct L2NormalizeBackward {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const T* dz = nullptr;          ///< (rows, columns)
  const T* z = nullptr;           ///< (rows, columns), saved by forward
  const Stat<T>* norm = nullptr;  ///< (rows), saved by forward
  T* dx = nullptr;                ///< (rows, columns), overwritten; may be the same array as dz
};

template <typename T>
void l2_normalize_forward(Cpu, const L2NormalizeForward<T>& args);
template <typename T>
void l2_normalize_backward(Cpu, const L2NormalizeBackward<T>& args);

template <typename T>
void l2_normalize_forward(Cuda, const L2NormalizeForward<T>& args);
template <typename T>
void l2_normalize_backward(Cuda, const L2NormalizeBackward<T>& args);

}  // namespace voca::kernels
