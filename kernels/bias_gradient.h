#pragma once

#include "kernels/types.h"

// Gradient of a bias that is added to every row: dbias[j] += Σ_r dy[r, j]. Partial sums over fixed chunks of
// rows are added in order, so the bits do not depend on the number of threads.

namespace voca::kernels {

template <typename T>
struct BiasGradient {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const T* dy = nullptr;    ///< (rows, columns)
  T* dbias = nullptr;       ///< (columns), accumulated into
  void* scratch = nullptr;  ///< cuda::bias_gradient_scratch_bytes; the CPU needs none
};

namespace cpu {
template <typename T>
void bias_gradient(const BiasGradient<T>& args);
}  // namespace cpu

/// T is float, bf16 or fp16. `stream` is a cudaStream_t.
namespace cuda {
template <typename T>
void bias_gradient(const BiasGradient<T>& args, void* stream);
[[nodiscard]] std::size_t bias_gradient_scratch_bytes(std::int64_t rows, std::int64_t columns);
}  // namespace cuda

}  // namespace voca::kernels
