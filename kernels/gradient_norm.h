#pragma once

#include "kernels/types.h"

// Global L2 norm of a flat gradient buffer. Squares are summed in double over fixed chunks in a fixed order,
// so the bits do not depend on the number of threads. A NaN or Inf anywhere makes the norm NaN or Inf.

namespace voca::kernels {

template <typename T>
struct GradientNorm {
  std::int64_t elements = 0;
  const T* gradient = nullptr;  ///< (elements)
  Stat<T>* norm = nullptr;      ///< (1), overwritten
  void* scratch = nullptr;      ///< gradient_norm_scratch_bytes
};

namespace cpu {
template <typename T>
void gradient_norm(const GradientNorm<T>& args);
[[nodiscard]] std::size_t gradient_norm_scratch_bytes(std::int64_t elements);
}  // namespace cpu

/// T is float, bf16 or fp16. `stream` is a cudaStream_t.
namespace cuda {
template <typename T>
void gradient_norm(const GradientNorm<T>& args, void* stream);
[[nodiscard]] std::size_t gradient_norm_scratch_bytes(std::int64_t elements);
}  // namespace cuda

}  // namespace voca::kernels
