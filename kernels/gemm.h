#pragma once

#include "kernels/types.h"

// GEMM, row-major: C = alpha · op(A) · op(B) + beta · C, op(X) = X or Xᵀ.
//
// On the CPU, the shape alone determines the tiles of a GEMM, and each tile is one single-threaded BLAS call,
// so the bits do not depend on the number of threads.

namespace voca::kernels {

enum class Transpose : std::uint8_t { kNo, kYes };

template <typename T>
struct Gemm {
  Transpose transpose_a = Transpose::kNo;
  Transpose transpose_b = Transpose::kNo;
  std::int64_t m = 0;  ///< rows of op(A) and C
  std::int64_t n = 0;  ///< columns of op(B) and C
  std::int64_t k = 0;  ///< columns of op(A), rows of op(B)
  T alpha = 1;
  const T* a = nullptr;  ///< (m, k), or (k, m) if transposed
  std::int64_t lda = 0;  ///< row stride of A as stored, in elements
  const T* b = nullptr;  ///< (k, n), or (n, k) if transposed
  std::int64_t ldb = 0;  ///< row stride of B as stored, in elements
  T beta = 0;            ///< 0 overwrites C without reading it
  T* c = nullptr;        ///< (m, n)
  std::int64_t ldc = 0;  ///< row stride of C, in elements
};

/// `batch` GEMMs whose operands lie `stride_*` elements apart.
template <typename T>
struct BatchedGemm {
  Gemm<T> one{};
  std::int64_t batch = 0;
  std::int64_t stride_a = 0;
  std::int64_t stride_b = 0;
  std::int64_t stride_c = 0;
};

namespace cpu {
template <typename T>
void gemm(const Gemm<T>& args);
/// Threads share the batch; each GEMM is one BLAS call.
template <typename T>
void batched_gemm(const BatchedGemm<T>& args);
}  // namespace cpu

}  // namespace voca::kernels
