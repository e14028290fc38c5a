#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/core/dtype.h"
#include "kernels/gemm.h"

namespace voca::engine {

/// One matrix product, or a batch of them, as a library for GPUs takes it; row-major, as kernels/gemm.h:
///
///   C = op(A) · op(B) + bias + beta · C,   op(X) = X or Xᵀ
struct MatrixProduct {
  DType dtype = DType::kF32;  ///< of all arrays: kF32, kBF16 or kF16; sums are fp32
  kernels::Transpose transpose_a = kernels::Transpose::kNo;
  kernels::Transpose transpose_b = kernels::Transpose::kNo;
  std::int64_t m = 0;  ///< rows of op(A) and C
  std::int64_t n = 0;  ///< columns of op(B) and C
  std::int64_t k = 0;  ///< columns of op(A), rows of op(B)
  const void* a = nullptr;
  std::int64_t lda = 0;  ///< elements from one stored row to the next, likewise ldb, ldc
  const void* b = nullptr;
  std::int64_t ldb = 0;
  bool accumulate = false;  ///< beta is 1, else 0 and C is not read
  bool add_bias = false;
  const void* bias = nullptr;  ///< (n), added to every row
  void* c = nullptr;
  std::int64_t ldc = 0;
  std::int64_t batch = 1;     ///< products whose operands lie stride_* elements apart
  std::int64_t stride_a = 0;  ///< likewise stride_b, stride_c
  std::int64_t stride_b = 0;
  std::int64_t stride_c = 0;
  int alignment = 16;  ///< bytes of which the start of every operand is a multiple; a power of two
};

/// What a GPU's library of products takes for its workspace.
inline constexpr std::size_t kProductWorkspaceBytes = std::size_t{32} << 20;

/// The matrix products of one GPU. A dry run tells prepare() of every product a run will ask for; tune()
/// finds the best algorithm of each once there is memory; multiply() then only queues. The same product
/// always takes the same algorithm, and all algorithms are deterministic, so the same build and device give
/// the same bits.
class MatrixProducts {
 public:
  MatrixProducts() = default;
  MatrixProducts(const MatrixProducts&) = delete;
  MatrixProducts& operator=(const MatrixProducts&) = delete;
  virtual ~MatrixProducts() = default;

  /// Notes a product of a dry run; its pointers are null.
  virtual void prepare(const MatrixProduct& product) = 0;
  /// What multiply() needs beside its operands; the owner of a run takes it from the device by name.
  [[nodiscard]] virtual std::size_t workspace_bytes() const = 0;
  /// Takes the workspace and chooses an algorithm for every product noted; may overwrite `memory`, the arena
  /// before the first step, to time candidates on.
  virtual void tune(std::byte* workspace, std::byte* memory, std::size_t memory_bytes) = 0;
  /// Queues a product on `stream`. One that was not noted (a last batch that is smaller than the others)
  /// takes the algorithm that the library proposes first.
  virtual void multiply(const MatrixProduct& product, void* stream) = 0;
  /// A line for every algorithm that tune() chose, for a run's record.
  [[nodiscard]] virtual std::vector<std::string> choices() const { return {}; }
};

}  // namespace voca::engine
