#pragma once

#include "kernels/philox.h"

namespace voca::kernels::testing {

/// Mask whose first element lies beyond 2³² decisions and starts a Philox call if `shift` is a multiple of 8.
inline Dropout test_dropout(double p, std::uint32_t site = 3, std::uint64_t shift = 0) {
  return {.seed = 0x123456789ABCDEFU,
          .step = 41,
          .site = site,
          .threshold = dropout_threshold(p),
          .first_element = (std::uint64_t{5} << 33U) + 8192 + shift};
}

/// Expected dropout factor of element `element`.
inline double reference_factor(const Dropout& dropout, std::int64_t element) {
  return dropout_keeps(dropout, static_cast<std::uint64_t>(element)) ? dropout.scale() : 0.0;
}

/// Expected dropout factor of attention probability (i, j) of matrix `matrix`.
inline double reference_factor(const Dropout& dropout, std::int64_t matrix, std::int64_t i, std::int64_t j,
                               std::int64_t query_length, std::int64_t key_length) {
  const std::uint64_t element =
      static_cast<std::uint64_t>(matrix) * attention_mask_size(query_length, key_length) +
      attention_mask_element(i, j, key_length);
  return dropout_keeps(dropout, element) ? dropout.scale() : 0.0;
}

}  // namespace voca::kernels::testing
