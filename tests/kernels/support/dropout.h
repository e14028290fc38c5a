#pragma once

#include "kernels/philox.h"

namespace voca::kernels::testing {

/// A mask whose first element does (shift 0) or does not start a Philox call, above 2³² decisions.
inline Dropout test_dropout(double p, std::uint32_t site = 3, std::uint64_t shift = 0) {
  return {.seed = 0x123456789ABCDEFU,
          .step = 41,
          .site = site,
          .threshold = dropout_threshold(p),
          .first_element = (std::uint64_t{5} << 33U) + 8192 + shift};
}

/// What the contract multiplies element `element` by.
inline double reference_factor(const Dropout& dropout, std::int64_t element) {
  return dropout_keeps(dropout, static_cast<std::uint64_t>(element)) ? dropout.scale() : 0.0;
}

/// The same for attention probability (i, j) of matrix number `matrix`.
inline double reference_factor(const Dropout& dropout, std::int64_t matrix, std::int64_t i, std::int64_t j,
                               std::int64_t query_length, std::int64_t key_length) {
  const std::uint64_t element =
      static_cast<std::uint64_t>(matrix) * attention_mask_size(query_length, key_length) +
      attention_mask_element(i, j, key_length);
  return dropout_keeps(dropout, element) ? dropout.scale() : 0.0;
}

}  // namespace voca::kernels::testing
