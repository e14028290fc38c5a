#pragma once

#include "kernels/philox.h"
#include "kernels/types.h"

// Dropout, residual and layer normalisation in one pass over each row (Ba, Kiros, Hinton 2016,
// arXiv:1607.06450):
//
//   z = residual + D_in(x + bias),   y = D_out((z − mean(z)) · rstd · gamma + beta),   rstd = 1/sqrt(var(z) +
//   eps)
//
// with the biased variance over the row. D_in and D_out are dropout (kernels/philox.h, element = row ·
// columns + column); each is off when its threshold is 0. Without residual, bias and dropout this is
// layernorm alone. Forward saves z, mean and rstd. Backward, with g = D_out'(dy) · gamma and x̂ = (z − mean) ·
// rstd:
//   dz = rstd · (g − mean(g) − x̂ · mean(g · x̂)),   dresidual = dz,   dx = D_in'(dz),
//   dgamma += Σ_rows D_out'(dy) · x̂,   dbeta += Σ_rows D_out'(dy),   dbias += Σ_rows dx.

namespace voca::kernels {

template <typename T>
struct LayernormForward {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const T* x = nullptr;         ///< (rows, columns); may be the same array as z
  const T* bias = nullptr;      ///< (columns), of the linear map that made x; null when x has it already
  const T* residual = nullptr;  ///< (rows, columns), or null for none
  const T* gamma = nullptr;     ///< (columns)
  const T* beta = nullptr;      ///< (columns)
  double eps = 1e-5;
  Dropout input_dropout{};   ///< D_in
  Dropout output_dropout{};  ///< D_out
  T* z = nullptr;            ///< (rows, columns), overwritten: saved for backward; null in inference
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
  T* dresidual = nullptr;             ///< (rows, columns), or null where forward had none
  bool accumulate_dresidual = false;  ///< dresidual is accumulated into instead of overwritten
  T* dgamma = nullptr;                ///< (columns), accumulated into
  T* dbeta = nullptr;                 ///< (columns), accumulated into
  T* dbias = nullptr;                 ///< (columns), accumulated into; null to leave it out
  void* scratch = nullptr;            ///< layernorm_backward_scratch_bytes
};

namespace cpu {
template <typename T>
void layernorm_forward(const LayernormForward<T>& args);
template <typename T>
void layernorm_backward(const LayernormBackward<T>& args);
/// Partial sums of the three parameter gradients, one set for each fixed chunk of rows.
template <typename T>
[[nodiscard]] std::size_t layernorm_backward_scratch_bytes(std::int64_t rows, std::int64_t columns);
}  // namespace cpu

/// float, bf16 and fp16. `stream` is a cudaStream_t.
namespace cuda {
template <typename T>
void layernorm_forward(const LayernormForward<T>& args, void* stream);
template <typename T>
void layernorm_backward(const LayernormBackward<T>& args, void* stream);
[[nodiscard]] std::size_t layernorm_backward_scratch_bytes(std::int64_t rows, std::int64_t columns);
}  // namespace cuda

}  // namespace voca::kernels
