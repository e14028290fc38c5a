#pragma once

#include "kernels/types.h"

// Gradient of a bias that was added to every row: dbias[j] += Σ_r dy[r, j]. The sum runs over fixed chunks of
// rows whose partial sums are added in order, so the bits do not depend on the number of threads.

namespace voca::kernels {

template <typename T>
struct BiasGradient {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const T* dy = nullptr;  ///< (rows, columns)
  T* dbias = nullptr;     ///< (columns), accumulated into
};

namespace cpu {
template <typename T>
void bias_gradient(const BiasGradient<T>& args);
}  // namespace cpu

}  // namespace voca::kernels
