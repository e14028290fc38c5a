#pragma once

#include "kernels/philox.h"
#include "kernels/types.h"

// Dropout, residual and layer normalisation (Ba, Kiros, Hinton 2016, arXiv:1607.06450) in one operation:
//
//   z = residual + D_in(x + bias)
//   y = D_out((z − mean(z)) · rstd · gamma + beta),   rstd = 1/sqrt(var(z) + eps)
//
// where var is the biased variance of the row. D_in and D_out are dropout (kernels/philox.h, element =
// row · columns + column); a threshold of 0 switches one off. Without residual, bias and dropout, y is plain
// layernorm. Forward saves z, mean and rstd. Backward, with g = D_out'(dy) · gamma, x̂ = (z − mean) · rstd:
//   dz = rstd · (g − mean(g) − x̂ · mean(g · x̂)),   dresidual = dz,   dx = D_in'(dz),
//   dgamma += Σ_rows D_out'(dy) · x̂,   dbeta += Σ_rows D_out'(dy),   dbias += Σ_rows dx.

namespace voca::kernels {

template <typename T>
struct LayernormForward {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const T* x = nullptr;         ///< (rows, columns); may be the same array as z
  const T* bias = nullptr;      ///< (columns), bias of the linear layer before; null if x includes it
  const T* residual = nullptr;  ///< (rows, columns); null if there is none
  const T* gamma = nullptr;     ///< (columns)
  const T* beta = nullptr;      ///< (columns)
  double eps = 1e-5;
  Dropout input_dropout{};   ///< D_in
  Dropout output_dropout{};  ///< D_out
  T* z = nullptr;            ///< (rows, columns), overwritten, saved for backward; null in inference
  Stat<T>* mean = nullptr;   ///< (rows), overwritten; null in inference
  Stat<T>* rstd = nullptr;   ///< (rows), overwritten; null in inference
  T* y = nullptr;            ///< (rows, columns), overwritten
};

template <typename T>
struct LayernormBackward {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const T* dy = nullptr;              ///< (rows, columns)
  const T* z = nullptr;               ///< (rows, columns), saved by forward
  const Stat<T>* mean = nullptr;      ///< (rows)
  const Stat<T>* rstd = nullptr;      ///< (rows)
  const T* gamma = nullptr;           ///< (columns)
  Dropout input_dropout{};            ///< as in forward
  Dropout output_dropout{};           ///< as in forward
  T* dx = nullptr;                    ///< (rows, columns), overwritten; may be the same array as dy
  T* dresidual = nullptr;             ///< (rows, columns); null if forward had no residual
  bool accumulate_dresidual = false;  ///< dresidual is accumulated into instead of overwritten
  T* dgamma = nullptr;                ///< (columns), accumulated into
  T* dbeta = nullptr;                 ///< (columns), accumulated into
  T* dbias = nullptr;                 ///< (columns), accumulated into; null if not wanted
  void* scratch = nullptr;            ///< scratch_bytes
};

template <typename T>
void layernorm_forward(Cpu, const LayernormForward<T>& args);
template <typename T>
void layernorm_backward(Cpu, const LayernormBackward<T>& args);
/// Scratch holds partial sums of the three parameter gradients per fixed chunk of rows.
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cpu, const LayernormBackward<T>& args);

template <typename T>
void layernorm_forward(Cuda, const LayernormForward<T>& args);
template <typename T>
void layernorm_backward(Cuda, const LayernormBackward<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cuda, const LayernormBackward<T>& args);

}  // namespace voca::kernels
