#pragma once

#include "kernels/cuda/elements.h"
#include "kernels/philox.h"

namespace voca::kernels::cuda {

/// Dropout as a kernel argument, with scale and keys computed on the host.
struct Mask {
  explicit Mask(const Dropout& the_dropout)
      : dropout(the_dropout),
        scale(static_cast<float>(the_dropout.scale())),
        keys(dropout_keys(the_dropout)) {}

  /// Decision bits of elements [8·block, 8·block + 8).
  [[nodiscard]] SIMT_DEVICE Philox4 bits(std::uint64_t block) const {
    return dropout_bits(dropout, block, keys);
  }

  /// Whether each Vec8 of the array gets its decisions from one Philox call.
  [[nodiscard]] bool whole() const { return !dropout.enabled() || dropout.first_element % kVec8 == 0; }

  Dropout dropout;
  float scale;
  PhiloxKeys<kDropoutRounds> keys;
};

/// Keep decisions of one Philox call for eight elements.
struct Vec8Decisions {
  SIMT_DEVICE Vec8Decisions(const Mask& mask, const Philox4& bits) {
    // Compares 16 bits in the upper half of a word.
    const std::uint32_t threshold = mask.dropout.threshold << 16U;
    SIMT_UNROLL
    for (int i = 0; i < kVec8 / 2; ++i) {
      keeps[2 * i] = bits.word[i] << 16U >= threshold;
      keeps[2 * i + 1] = bits.word[i] >= threshold;
    }
  }

  bool keeps[kVec8];
};

/// Applies dropout to eight elements from `first` on (relative to element 0 of the array). A dropped element
/// is multiplied by 0, so NaN and infinity propagate as NaN. kWhole requires that `first` is a multiple of
/// eight and the mask is whole().
template <bool kWhole>
SIMT_DEVICE void drop_vec8(const Mask& mask, std::int64_t first, float (&values)[kVec8]) {
  if (!mask.dropout.enabled()) return;
  const std::uint64_t element = mask.dropout.first_element + static_cast<std::uint64_t>(first);
  const Philox4 bits = mask.bits(element / kVec8);
  const auto skipped = static_cast<int>(element % kVec8);
  if (kWhole || skipped == 0) {
    const Vec8Decisions decisions(mask, bits);
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) values[i] *= decisions.keeps[i] ? mask.scale : 0.0F;
    return;
  }
  // The eight elements span two Philox calls, for example if the row width is not a multiple of eight.
  const Philox4 next = mask.bits(element / kVec8 + 1);
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) {
    const int place = skipped + i;
    const bool keeps = place < kVec8 ? dropout_keeps(bits, place, mask.dropout.threshold)
                                     : dropout_keeps(next, place - kVec8, mask.dropout.threshold);
    values[i] *= keeps ? mask.scale : 0.0F;
  }
}

}  // namespace voca::kernels::cuda
