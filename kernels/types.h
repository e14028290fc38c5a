#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

// What every operation header includes. Operations are templates over the element type T: float and double on
// the CPU; float, bf16 and fp16 on a GPU. They take plain pointers and sizes, allocate nothing and keep no
// state. An output is "overwritten" or "accumulated into" (+=), and its line says which. Pointers do not
// alias unless a line says they may.

namespace voca::kernels {

/// Type of statistics (mean, rstd, log-sum-exp), losses and norms: never narrower than float.
template <typename T>
using Stat = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// ceil(a / b) for a ≥ 0, b > 0.
[[nodiscard]] constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// Scratch is carved in pieces that start on this many bytes.
inline constexpr std::size_t kScratchAlignment = 64;

[[nodiscard]] constexpr std::size_t align_up(std::size_t bytes) {
  return (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
}

/// The factor of a loss's gradient: `grad` times the loss scale, where there is one.
[[nodiscard]] constexpr double scaled(double grad, const float* loss_scale) {
  return loss_scale == nullptr ? grad : grad * static_cast<double>(loss_scale[0]);
}

}  // namespace voca::kernels
