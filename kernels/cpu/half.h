#pragma once

#include <bit>
#include <cstdint>

#include "kernels/backend.h"

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

/// Converts IEEE binary16 bits to float; exact, NaN payloads included.
[[nodiscard]] inline float half_to_float(std::uint16_t half) {
  // Shifted into the fields of a float, the bits are the value times 2^-112, subnormals included; the
  // multiplication is exact. Exponent 31 (infinity, NaN) becomes exponent 255 instead.
  const std::uint32_t magnitude = (half & 0x7FFFU) * 0x2000U;
  const std::uint32_t sign = (half & 0x8000U) * 0x10000U;
  const auto scaled = std::bit_cast<float>(magnitude) * 0x1p112F;
  const auto finite = std::bit_cast<std::uint32_t>(scaled);
  const std::uint32_t special = magnitude | 0x7F800000U;
  return std::bit_cast<float>(sign | (magnitude >= 0x0F800000U ? special : finite));
}

/// Rounds to IEEE binary16, ties to even; overflow gives infinity.
[[nodiscard]] inline std::uint16_t float_to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return static_cast<std::uint16_t>(sign | 0x7E00U);   // NaN
  if (magnitude >= 0x477FF000U) return static_cast<std::uint16_t>(sign | 0x7C00U);  // ≥ 65520 rounds to ∞
  if (magnitude < 0x38800000U) {
    // Subnormal: floats in [0.5, 1) have an ulp of 2^-24, the unit of subnormal halves, so adding 0.5 rounds
    // and leaves the mantissa of the half in the lowest bits.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U));
  }
  const std::uint32_t odd = (magnitude >> 13) & 1U;
  return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000U + 0xFFFU + odd) >> 13));
}

/// Converts bfloat16 bits to float; exact.
[[nodiscard]] inline float bfloat16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Rounds to bfloat16, ties to even.
[[nodiscard]] inline std::uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);  // NaN
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
