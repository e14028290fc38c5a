#include "engine/cuda/gemm_plan.h"

#include "engine/base/error.h"

namespace voca::engine::cuda {
namespace {

cudaDataType_t cuda_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return CUDA_R_32F;
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kF16:
      return CUDA_R_16F;
    default:
      throw InternalError("GEMM: a GPU has none in {}", name_of(dtype));
  }
}

/// Layout of our stored matrix (rows, columns) in column-major terms.
Layout make_layout(const LibraryGemm& p, std::int64_t rows, std::int64_t columns, std::int64_t ld,
                   std::int64_t stride) {
  Layout layout;
  VOCA_CUDA(cublasLtMatrixLayoutCreate(layout.address(), cuda_type(p.dtype),
                                       static_cast<std::uint64_t>(columns), static_cast<std::uint64_t>(rows),
                                       ld));
  if (p.batch > 1) {
    set(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<std::int32_t>(p.batch));
    set(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, stride);
  }
  return layout;
}

}  // namespace

Plan make_plan(const LibraryGemm& p, bool allow_tf32) {
  const auto operation = [](kernels::Transpose transpose) {
    return transpose == kernels::Transpose::kYes ? CUBLAS_OP_T : CUBLAS_OP_N;
  };
  const bool ta = p.transpose_a == kernels::Transpose::kYes;
  const bool tb = p.transpose_b == kernels::Transpose::kYes;
  const bool tf32 = allow_tf32 && p.dtype == DType::kF32;
  Plan plan;
  VOCA_CUDA(cublasLtMatmulDescCreate(plan.description.address(),
                                     tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
  set(plan.description, CUBLASLT_MATMUL_DESC_TRANSA, operation(p.transpose_b));
  set(plan.description, CUBLASLT_MATMUL_DESC_TRANSB, operation(p.transpose_a));
  if (p.add_bias) set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  plan.first = make_layout(p, tb ? p.n : p.k, tb ? p.k : p.n, p.ldb, p.stride_b);
  plan.second = make_layout(p, ta ? p.k : p.m, ta ? p.m : p.k, p.lda, p.stride_a);
  plan.result = make_layout(p, p.m, p.n, p.ldc, p.stride_c);
  return plan;
}

}  // namespace voca::engine::cuda
