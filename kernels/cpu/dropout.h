#pragma once

#include <cstdint>

#include "kernels/philox.h"

// Dropout decisions (kernels/philox.h), many Philox calls at a time.

namespace voca::kernels::cpu {

/// Decisions of runs of consecutive elements. With dropout off every element is kept at scale 1, so that an
/// operation has one loop for both. A dropped element is multiplied by 0: NaN and infinity stay visible.
template <typename T>
class DropoutRun {
 public:
  /// Longest run of one call of bits().
  static constexpr std::int64_t kLength = 512;

  explicit DropoutRun(const Dropout& dropout)
      : dropout_(dropout),
        threshold_(static_cast<std::int32_t>(dropout.threshold)),
        scale_(static_cast<T>(dropout.scale())) {}

  /// The 16 bits of `count` elements from `first` on (counted from the array's element 0); valid until the
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

/// What an element is multiplied by.
template <typename T>
[[nodiscard]] inline T dropout_factor(std::uint16_t bits, std::int32_t threshold, T scale) {
  return static_cast<std::int32_t>(bits) >= threshold ? scale : T{0};
}

/// The 16 bits of the 16 × 16 tile from (row, column) on, both multiples of 16, of matrix number `matrix` of
/// attention probabilities: bits[i · stride + j]. Entries outside the matrix are written too. Zeros (all
/// kept) with dropout off.
void attention_dropout_tile(const Dropout& dropout, std::int64_t matrix, std::int64_t row,
                            std::int64_t column, std::int64_t query_length, std::int64_t key_length,
                            std::int64_t stride, std::uint16_t* bits);

}  // namespace voca::kernels::cpu
