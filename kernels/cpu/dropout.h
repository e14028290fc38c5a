#pragma once

#include <cstdint>

#include "kernels/philox.h"

// Dropout decisions (kernels/philox.h), computed many Philox calls at a time.

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

/// Decisions for runs of consecutive elements. If dropout is off, every element is kept at scale 1, so
/// operations need only one loop. A dropped element is multiplied by 0, so NaN and infinity propagate as NaN.
template <typename T>
class DropoutRun {
 public:
  /// Maximum `count` of bits().
  static constexpr std::int64_t kLength = 512;

  explicit DropoutRun(const Dropout& dropout)
      : dropout_(dropout),
        threshold_(static_cast<std::int32_t>(dropout.threshold)),
        scale_(static_cast<T>(dropout.scale())) {}

  /// 16 bits each of `count` elements from `first` on (relative to element 0 of the array); valid until the
  /// next call.
  [[nodiscard]] const std::uint16_t* bits(std::int64_t first, std::int64_t count);

  [[nodiscard]] std::int32_t threshold() const { return threshold_; }
  [[nodiscard]] T scale() const { return scale_; }

 private:
  Dropout dropout_;
  std::int32_t threshold_;
  T scale_;
  alignas(64) std::uint16_t bits_[kLength + 256] = {};
};

/// Factor of an element: `scale` if kept, else 0.
template <typename T>
[[nodiscard]] inline T dropout_factor(std::uint16_t bits, std::int32_t threshold, T scale) {
  return static_cast<std::int32_t>(bits) >= threshold ? scale : T{0};
}

/// Writes 16 bits each of the 16 × 16 tile at (row, column), both multiples of 16, of attention matrix
/// `matrix` to bits[i · stride + j]. Entries outside the matrix are written too. If dropout is off, all bits
/// are zero, and the threshold of 0 keeps every element.
void attention_dropout_tile(const Dropout& dropout, std::int64_t matrix, std::int64_t row,
                            std::int64_t column, std::int64_t query_length, std::int64_t key_length,
                            std::int64_t stride, std::uint16_t* bits);

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
