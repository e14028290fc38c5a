#pragma once

#include <bit>

#include "kernels/types.h"

// GEMM, row-major: C = alpha · op(A) · op(B) + bias + beta · C, op(X) = X or Xᵀ.
//
// On the CPU, every element of C is added up in one order (kernels/cpu/serial_gemm.h), so its bits depend on
// the rows and columns that it is made of alone: not on the threads, nor on the other rows of a batch. On a
// GPU a library computes it (engine/core/gemm_library.h).

namespace voca::kernels {

enum class Transpose : std::uint8_t { kNo, kYes };

/// A GEMM, or a strided batch of them. T is void where the element type is known only at run time.
template <typename T>
struct Gemm {
  Transpose transpose_a = Transpose::kNo;
  Transpose transpose_b = Transpose::kNo;
  std::int64_t m = 0;  ///< rows of op(A) and C
  std::int64_t n = 0;  ///< columns of op(B) and C
  std::int64_t k = 0;  ///< columns of op(A), rows of op(B)
  double alpha = 1;
  const T* a = nullptr;  ///< (m, k), or (k, m) if transposed
  std::int64_t lda = 0;  ///< row stride of A as stored, in elements
  const T* b = nullptr;  ///< (k, n), or (n, k) if transposed
  std::int64_t ldb = 0;  ///< row stride of B as stored, in elements
  bool add_bias = false;
  const T* bias = nullptr;  ///< (n), added to every row if add_bias
  double beta = 0;          ///< 0 overwrites C without reading it
  T* c = nullptr;           ///< (m, n)
  std::int64_t ldc = 0;     ///< row stride of C, in elements
  std::int64_t batch = 1;   ///< GEMMs whose operands lie stride_* elements apart, with one bias
  std::int64_t stride_a = 0;
  std::int64_t stride_b = 0;
  std::int64_t stride_c = 0;
  void* scratch = nullptr;  ///< scratch_bytes() on the CPU; a GPU's library has its own
};

/// The same GEMM without its element type.
template <typename T>
[[nodiscard]] Gemm<void> without_type(const Gemm<T>& gemm) {
  return std::bit_cast<Gemm<void>>(gemm);
}

/// Threads share a single GEMM, or the GEMMs of a batch.
template <typename T>
void gemm(Cpu, const Gemm<T>& args);

template <typename T>
[[nodiscard]] std::size_t scratch_bytes(Cpu, const Gemm<T>& args);

}  // namespace voca::kernels
