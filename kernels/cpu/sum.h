#pragma once

#include <cstdint>

namespace voca::kernels::cpu {

/// Σ_{i < n} term(i) in double. The order of the additions is fixed by n alone (sixteen running sums, joined
/// pairwise), not by the compiler or the alignment of what term reads, and it fits vector registers.
template <typename Term>
[[nodiscard]] inline double ordered_sum(std::int64_t n, const Term& term) {
  constexpr std::int64_t kLanes = 16;
  double lane[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) lane[j] += term(i + j);
  }
  for (std::int64_t j = 0; i + j < n; ++j) lane[j] += term(i + j);
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::int64_t j = 0; j < width; ++j) lane[j] += lane[j + width];
  }
  return lane[0];
}

}  // namespace voca::kernels::cpu
