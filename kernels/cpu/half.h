#pragma once

#include <bit>
#include <cstdint>

namespace voca::kernels::cpu {

/// The value of IEEE binary16 bits; exact, NaN payloads included.
[[nodiscard]] inline float half_to_float(std::uint16_t half) {
  // Moved into a float's fields the bits are the value times 2^-112, subnormals too; the multiplication is
  // exact. Exponent 31 (infinity, NaN) becomes exponent 255 whatever the product.
  const std::uint32_t magnitude = (half & 0x7FFFU) * 0x2000U;
  const std::uint32_t sign = (half & 0x8000U) * 0x10000U;
  const auto scaled = std::bit_cast<float>(magnitude) * 0x1p112F;
  const auto finite = std::bit_cast<std::uint32_t>(scaled);
  const std::uint32_t special = magnitude | 0x7F800000U;
  return std::bit_cast<float>(sign | (magnitude >= 0x0F800000U ? special : finite));
}

}  // namespace voca::kernels::cpu
