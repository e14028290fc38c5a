#pragma once

#include <cmath>
#include <cstdint>

namespace voca::kernels::testing {

/// Value of IEEE 754 binary16 bits, by definition.
inline double half_value(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const double fraction = static_cast<double>(bits & 1023) / 1024.0;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, -14);
  return sign * std::ldexp(1 + fraction, exponent - 15);
}

}  // namespace voca::kernels::testing
