#pragma once

#include "kernels/types.h"

// Global L2 norm of a flat gradient buffer. Squares are summed in double over fixed chunks in a fixed order,
// so the bits do not depend on the number of threads. A NaN or Inf anywhere makes the norm NaN or Inf.

namespace voca::kernels {

/// Elements per partial sum.
inline constexpr std::int64_t kGradientNormChunk = 16384;

template <typename T>
struct GradientNorm {
  std::int64_t elements = 0;
  const T* gradient = nullptr;  ///< (elements)
  Stat<T>* norm = nullptr;      ///< (1), overwritten
  void* scratch = nullptr;      ///< scratch_bytes
};

template <typename T>
void gradient_norm(Cpu, const GradientNorm<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cpu, const GradientNorm<T>& args);

template <typename T>
void gradient_norm(Cuda, const GradientNorm<T>& args);
template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cuda, const GradientNorm<T>& args);

}  // namespace voca::kernels
