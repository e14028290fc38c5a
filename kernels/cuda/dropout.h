#pragma once

#include "kernels/cuda/elements.h"
#include "kernels/philox.h"

namespace voca::kernels::cuda {

/// Dropout as kernels take it, with the scale worked out on the host.
struct Mask {
  explicit Mask(const Dropout& the_dropout)
      : dropout(the_dropout), scale(static_cast<float>(the_dropout.scale())) {}

  Dropout dropout;
  float scale;
};

/// What the eight elements from `first` on (counted from the array's element 0) are multiplied by. A dropped
/// element is multiplied by 0: NaN and infinity stay visible.
SIMT_DEVICE void octet_factors(const Mask& mask, std::int64_t first, float (&factors)[kOctet]) {
  if (!mask.dropout.enabled()) {
    SIMT_UNROLL
    for (int i = 0; i < kOctet; ++i) factors[i] = 1.0F;
    return;
  }
  const std::uint64_t element = mask.dropout.first_element + static_cast<std::uint64_t>(first);
  const auto skipped = static_cast<int>(element % kOctet);
  const Philox4 bits = dropout_bits(mask.dropout, element / kOctet);
  if (skipped == 0) {
    SIMT_UNROLL
    for (int i = 0; i < kOctet; ++i)
      factors[i] = dropout_keeps(bits, i, mask.dropout.threshold) ? mask.scale : 0.0F;
    return;
  }
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
