#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/core/dtype.h"
#include "kernels/gemm.h"

namespace voca::engine {

/// One GEMM, or a strided batch of them, for a GPU library; row-major, as in kernels/gemm.h:
///
///   C = op(A) · op(B) + bias + beta · C,   op(X) = X or Xᵀ
struct MatrixProduct {
  DType dtype = DType::kF32;  ///< of all arrays: kF32, kBF16 or kF16; accumulation is fp32
  kernels::Transpose transpose_a = kernels::Transpose::kNo;
  kernels::Transpose transpose_b = kernels::Transpose::kNo;
  std::int64_t m = 0;  ///< rows of op(A) and C
  std::int64_t n = 0;  ///< columns of op(B) and C
  std::int64_t k = 0;  ///< columns of op(A), rows of op(B)
  const void* a = nullptr;
  std::int64_t lda = 0;  ///< elements between consecutive stored rows; ldb and ldc too
  const void* b = nullptr;
  std::int64_t ldb = 0;
  bool accumulate = false;  ///< beta is 1; otherwise 0, and C is not read
  bool add_bias = false;
  const void* bias = nullptr;  ///< (n), added to every row
  void* c = nullptr;
  std::int64_t ldc = 0;
  std::int64_t batch = 1;     ///< GEMMs whose operands are stride_* elements apart
  std::int64_t stride_a = 0;  ///< in elements; stride_b and stride_c too
  std::int64_t stride_b = 0;
  std::int64_t stride_c = 0;
  int alignment = 16;  ///< power of two that divides the start address of every operand, in bytes
};

/// Workspace of a GPU's GEMM library.
inline constexpr std::size_t kProductWorkspaceBytes = std::size_t{32} << 20;

/// GEMM library of one GPU. A dry run passes every GEMM of the run to prepare(); tune() chooses an algorithm
/// for each once there is memory; multiply() then only queues. Each GEMM always takes the same algorithm, and
/// all algorithms are deterministic: the same build and device give the same bits.
class MatrixProducts {
 public:
  MatrixProducts() = default;
  MatrixProducts(const MatrixProducts&) = delete;
  MatrixProducts& operator=(const MatrixProducts&) = delete;
  virtual ~MatrixProducts() = default;

  /// Records a GEMM of a dry run; its pointers are null.
  virtual void prepare(const MatrixProduct& product) = 0;
  /// Size of the workspace for multiply(); the owner of the run allocates it from the device by name.
  [[nodiscard]] virtual std::size_t workspace_bytes() const = 0;
  /// Takes over the workspace and chooses an algorithm for every recorded GEMM; may overwrite `memory`, the
  /// arena before the first step, to time candidates.
  virtual void tune(std::byte* workspace, std::byte* memory, std::size_t memory_bytes) = 0;
  /// Queues a GEMM on `stream`. If it was not recorded (a smaller last batch), it takes the first algorithm
  /// that the library proposes.
  virtual void multiply(const MatrixProduct& product, void* stream) = 0;
  /// One line per algorithm that tune() chose, for the record of the run.
  [[nodiscard]] virtual std::vector<std::string> choices() const { return {}; }
};

}  // namespace voca::engine
