#pragma once

#include "kernels/philox.h"
#include "kernels/types.h"

// Bias, exact GELU (Hendrycks, Gimpel 2016, arXiv:1606.08415, erf form) and dropout:
//
//   u = x + bias,   gelu(u) = u · Φ(u) = u/2 · (1 + erf(u/√2)),   y = D(gelu(u))
//
// Forward saves nothing; backward takes x and bias again. gelu'(u) = Φ(u) + u · φ(u).
// Backward: dx = D'(dy) · gelu'(u),   dbias += Σ_rows dx. Dropout element = row · columns + column.

namespace voca::kernels {

template <typename T>
struct GeluForward {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const T* x = nullptr;     ///< (rows, columns)
  const T* bias = nullptr;  ///< (columns), or null if x already includes it
  Dropout dropout{};
  T* y = nullptr;  ///< (rows, columns), overwritten; may be the same array as x in inference
};

template <typename T>
struct GeluBackward {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const T* dy = nullptr;    ///< (rows, columns)
  const T* x = nullptr;     ///< (rows, columns), as in forward
  const T* bias = nullptr;  ///< as in forward
  Dropout dropout{};
  T* dx = nullptr;          ///< (rows, columns), overwritten; may be the same array as dy
  T* dbias = nullptr;       ///< (columns), accumulated into; null if not wanted
  void* scratch = nullptr;  ///< scratch_bytes
};

template <typename T>
void gelu_forward(Cpu, const GeluForward<T>& args);
template <typename T>
void gelu_backward(Cpu, const GeluBackward<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cpu, const GeluBackward<T>& args);

template <typename T>
void gelu_forward(Cuda, const GeluForward<T>& args);
template <typename T>
void gelu_backward(Cuda, const GeluBackward<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cuda, const GeluBackward<T>& args);

}  // namespace voca::kernels
