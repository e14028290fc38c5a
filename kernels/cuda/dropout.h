#pragma once

#include "kernels/cuda/elements.h"
#include "kernels/philox.h"

namespace voca::kernels::cuda {

/// Dropout as kernels take it, with the scale worked out on the host.
struct Mask {
  explicit Mask(const Dropout& the_dropout)
      : dropout(the_dropout), scale(static_cast<float>(the_dropout.scale())) {}

  /// Whether octets of the array are the eights that one Philox call decides for.
  [[nodiscard]] bool whole() const { return !dropout.enabled() || dropout.first_element % kOctet == 0; }

  Dropout dropout;
  float scale;
};

/// What each of eight elements is multiplied by. A dropped element is multiplied by 0: NaN and infinity stay
/// visible.
SIMT_DEVICE void decided_factors(const Mask& mask, const Philox4& bits, float (&factors)[kOctet]) {
  // 16 bits are compared in the upper half of a word.
  const std::uint32_t threshold = mask.dropout.threshold << 16U;
  SIMT_UNROLL
  for (int i = 0; i < kOctet / 2; ++i) {
    factors[2 * i] = bits.word[i] << 16U >= threshold ? mask.scale : 0.0F;
    factors[2 * i + 1] = bits.word[i] >= threshold ? mask.scale : 0.0F;
  }
}

/// The factors of the eight elements from `first` on (counted from the array's element 0). kWhole: `first` is
/// a multiple of eight, and the mask is whole().
template <bool kWhole>
SIMT_DEVICE void octet_factors(const Mask& mask, std::int64_t first, float (&factors)[kOctet]) {
  if (!mask.dropout.enabled()) {
    SIMT_UNROLL
    for (int i = 0; i < kOctet; ++i) factors[i] = 1.0F;
    return;
  }
  const std::uint64_t element = mask.dropout.first_element + static_cast<std::uint64_t>(first);
  const Philox4 bits = dropout_bits(mask.dropout, element / kOctet);
  const auto skipped = static_cast<int>(element % kOctet);
  if (kWhole || skipped == 0) return decided_factors(mask, bits, factors);
  // The octet lies across two calls: rows of a width that is no multiple of eight.
  const Philox4 next = dropout_bits(mask.dropout, element / kOctet + 1);
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) {
    const int place = skipped + i;
    const bool keeps = place < kOctet ? dropout_keeps(bits, place, mask.dropout.threshold)
                                      : dropout_keeps(next, place - kOctet, mask.dropout.threshold);
    factors[i] = keeps ? mask.scale : 0.0F;
  }
}

}  // namespace voca::kernels::cuda
