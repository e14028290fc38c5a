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
  void* scratch = nullptr;  ///< scratch_bytes
};

template <typename T>
void bias_gradient(Cpu, const BiasGradient<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cpu, const BiasGradient<T>& /*args*/) {
  return 0;
}

template <typename T>
void bias_gradient(Cuda, const BiasGradient<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cuda, const BiasGradient<T>& args);

}  // namespace voca::kernels
