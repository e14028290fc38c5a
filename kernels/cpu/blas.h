#pragma once

#include <cblas.h>

#include <cstdint>

#include "kernels/cpu/gemm_buffers.h"
#include "kernels/gemm.h"

// Single-threaded BLAS GEMM, row-major.

namespace voca::kernels::cpu {

namespace detail {
/// Makes OpenBLAS single-threaded. Threads come from kernels/cpu/parallel.h; if the BLAS split a GEMM itself,
/// the bits would depend on the machine.
inline void use_one_blas_thread() {
  static const bool done = [] {
    openblas_set_num_threads(1);
    gemm_ran = true;
    return true;
  }();
  static_cast<void>(done);
}

[[nodiscard]] inline CBLAS_TRANSPOSE cblas_of(Transpose transpose) {
  return transpose == Transpose::kYes ? CblasTrans : CblasNoTrans;
}
}  // namespace detail

/// Runs one BLAS GEMM on the calling thread, without batch and bias.
inline void blas_gemm(const Gemm<float>& args) {
  detail::use_one_blas_thread();
  cblas_sgemm(CblasRowMajor, detail::cblas_of(args.transpose_a), detail::cblas_of(args.transpose_b),
              static_cast<blasint>(args.m), static_cast<blasint>(args.n), static_cast<blasint>(args.k),
              static_cast<float>(args.alpha), args.a, static_cast<blasint>(args.lda), args.b,
              static_cast<blasint>(args.ldb), static_cast<float>(args.beta), args.c,
              static_cast<blasint>(args.ldc));
}

inline void blas_gemm(const Gemm<double>& args) {
  detail::use_one_blas_thread();
  cblas_dgemm(CblasRowMajor, detail::cblas_of(args.transpose_a), detail::cblas_of(args.transpose_b),
              static_cast<blasint>(args.m), static_cast<blasint>(args.n), static_cast<blasint>(args.k),
              args.alpha, args.a, static_cast<blasint>(args.lda), args.b, static_cast<blasint>(args.ldb),
              args.beta, args.c, static_cast<blasint>(args.ldc));
}

}  // namespace voca::kernels::cpu
