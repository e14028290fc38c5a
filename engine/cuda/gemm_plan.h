#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <tuple>
#include <utility>

#include "engine/core/gemm_library.h"
#include "engine/cuda/check.h"

// A GEMM in the terms of cuBLASLt.

namespace voca::engine::cuda {

/// Owns a cuBLASLt descriptor; `destroy` is its destructor.
template <typename Handle, cublasStatus_t (*destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (handle_ != nullptr) report(destroy(handle_), "cublasLt…Destroy");
  }
  [[nodiscard]] Handle* address() { return &handle_; }
  [[nodiscard]] Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};
using Library = Owned<cublasLtHandle_t, cublasLtDestroy>;
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

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
  VOCA_CUBLAS(cublasLtMatmulDescSetAttribute(description.get(), attribute, &value, sizeof value));
}
template <typename T>
void set(const Layout& layout, cublasLtMatrixLayoutAttribute_t attribute, const T& value) {
  VOCA_CUBLAS(cublasLtMatrixLayoutSetAttribute(layout.get(), attribute, &value, sizeof value));
}
template <typename T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  VOCA_CUBLAS(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value));
}

/// The plan of a GEMM, without algorithm and bias pointer. Throws InternalError for a type that a GPU lacks.
[[nodiscard]] Plan make_plan(const LibraryGemm& gemm, bool allow_tf32);

}  // namespace voca::engine::cuda
