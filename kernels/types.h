#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

// Conventions of all operations. Operations are templates over the element type T: float and double on the
// CPU; float, bf16 and fp16 on a GPU. They take plain pointers and sizes, allocate nothing and keep no state.
// Each output is documented as "overwritten" or "accumulated into" (+=). Pointers must not alias unless the
// documentation of a field allows it.

namespace voca::kernels {

/// Type of statistics (mean, rstd, log-sum-exp), losses and norms; at least float.
template <typename T>
using Stat = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// ceil(a / b) for a ≥ 0, b > 0.
[[nodiscard]] constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

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
