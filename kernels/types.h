#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/backend.h"

// Conventions of all operations. Operations are templates over the element type T: VOCA_CPU_TYPES on the CPU,
// VOCA_CUDA_TYPES on a GPU. They take plain pointers and sizes, allocate nothing and keep no state. Where an
// operation needs scratch, scratch_bytes(backend, args) says how much; it reads only the sizes of `args`.
// Each output is documented as "overwritten" or "accumulated into" (+=). Pointers must not alias unless the
// documentation of a field allows it.

#if defined(__CUDACC__)
#define VOCA_HOST_DEVICE __host__ __device__
#else
#define VOCA_HOST_DEVICE
#endif

namespace voca::kernels {

/// Type of statistics (mean, rstd, log-sum-exp), losses and norms; at least float.
template <typename T>
using Stat = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// ceil(a / b) for a ≥ 0, b > 0.
[[nodiscard]] constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// Partition of rows into chunks, for sums over rows in two steps. Depends only on the shape: at most
/// `max_chunks`, of `min_rows` rows or more.
struct RowChunks {
  std::int64_t rows;
  std::int64_t rows_per_chunk;
  std::int64_t count;

  RowChunks(std::int64_t row_count, std::int64_t min_rows, std::int64_t max_chunks) : rows(row_count) {
    const std::int64_t share = divide_up(row_count, max_chunks);
    rows_per_chunk = share > min_rows ? share : min_rows;
    count = divide_up(row_count, rows_per_chunk);
  }

  [[nodiscard]] VOCA_HOST_DEVICE std::int64_t begin(std::int64_t chunk) const {
    return chunk * rows_per_chunk;
  }
  [[nodiscard]] VOCA_HOST_DEVICE std::int64_t end(std::int64_t chunk) const {
    const std::int64_t end = (chunk + 1) * rows_per_chunk;
    return end < rows ? end : rows;
  }
};

/// Alignment of scratch sub-allocations, in bytes.
inline constexpr std::size_t kScratchAlignment = 64;

[[nodiscard]] constexpr std::size_t align_up(std::size_t bytes) {
  return (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
}

/// Factor of the gradient of a loss: `grad` times the loss scale, or `grad` if `loss_scale` is null.
[[nodiscard]] constexpr double scaled(double grad, const float* loss_scale) {
  return loss_scale == nullptr ? grad : grad * static_cast<double>(loss_scale[0]);
}

}  // namespace voca::kernels
