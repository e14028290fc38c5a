#pragma once

#include <cublasLt.h>

#include <tuple>

#include "engine/base/unique_handle.h"
#include "engine/core/gemm_library.h"
#include "engine/cuda/check.h"

// A GEMM in the terms of cuBLASLt.

namespace voca::engine::cuda {

/// A handle of cuBLASLt; `kDestroy` is its destructor.
template <typename Handle, cublasStatus_t (*kDestroy)(Handle)>
struct CublasTraits {
  static constexpr Handle kNone = nullptr;
  static void close(Handle handle) { report(kDestroy(handle), "cublasLt…Destroy"); }
};
using Library = UniqueHandle<CublasTraits<cublasLtHandle_t, cublasLtDestroy>>;
using Description = UniqueHandle<CublasTraits<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>>;
using Layout = UniqueHandle<CublasTraits<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>>;
using Preference = UniqueHandle<CublasTraits<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>>;

/// Orders GEMMs by everything except operand addresses.
struct ByShape {
  static auto tie(const LibraryGemm& p) {
    return std::tie(p.dtype, p.transpose_a, p.transpose_b, p.m, p.n, p.k, p.lda, p.ldb, p.ldc, p.beta,
                    p.add_bias, p.batch, p.stride_a, p.stride_b, p.stride_c, p.alignment);
  }
  bool operator()(const LibraryGemm& x, const LibraryGemm& y) const { return tie(x) < tie(y); }
};

/// A GEMM as cuBLASLt takes it. cuBLASLt is column-major and sees our matrices transposed, so that Cᵀ =
/// op(B)ᵀ · op(A)ᵀ: B is its first operand, and the bias, one value per column of C, is one per row of its
/// result.
struct Plan {
  Description description;
  Layout first;   ///< B
  Layout second;  ///< A
  Layout result;  ///< C
  cublasLtMatmulAlgo_t algorithm{};
  bool has_algorithm = false;
};

template <typename T>
void set(const Description& description, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  VOCA_CUDA(cublasLtMatmulDescSetAttribute(description.get(), attribute, &value, sizeof value));
}
template <typename T>
void set(const Layout& layout, cublasLtMatrixLayoutAttribute_t attribute, const T& value) {
  VOCA_CUDA(cublasLtMatrixLayoutSetAttribute(layout.get(), attribute, &value, sizeof value));
}
template <typename T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  VOCA_CUDA(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value));
}

/// The plan of a GEMM, without algorithm and bias pointer. Throws InternalError for a type that a GPU lacks.
[[nodiscard]] Plan make_plan(const LibraryGemm& gemm, bool allow_tf32);

}  // namespace voca::engine::cuda
