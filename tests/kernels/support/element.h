#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "tests/kernels/support/backend.h"

// Conversion between element types, including 16-bit ones, and double, and bitwise comparison.

namespace voca::kernels::testing {

/// Whether T is one of the 16-bit floating-point types.
template <typename T>
inline constexpr bool kIsNarrow = false;

template <typename T>
[[nodiscard]] double to_double(T value) {
  return static_cast<double>(value);
}
/// Rounds to T, to nearest even.
template <typename T>
[[nodiscard]] T from_double(double value) {
  return static_cast<T>(value);
}
/// Largest finite value of T.
template <typename T>
[[nodiscard]] double largest() {
  return static_cast<double>(std::numeric_limits<T>::max());
}
/// Distance from 1 to the next larger number of T.
template <typename T>
[[nodiscard]] double epsilon() {
  return static_cast<double>(std::numeric_limits<T>::epsilon());
}

#if defined(VOCA_TEST_CUDA_ON_HOST) || defined(VOCA_TEST_CUDA)
template <>
inline constexpr bool kIsNarrow<__nv_bfloat16> = true;
template <>
inline constexpr bool kIsNarrow<__half> = true;
template <>
inline double to_double(__nv_bfloat16 value) {
  return static_cast<double>(__bfloat162float(value));
}
template <>
inline double to_double(__half value) {
  return static_cast<double>(__half2float(value));
}
template <>
inline __nv_bfloat16 from_double(double value) {
  return __double2bfloat16(value);
}
template <>
inline __half from_double(double value) {
  return __double2half(value);
}
template <>
inline double largest<__nv_bfloat16>() {
  return 0x1.FEp127;
}
template <>
inline double largest<__half>() {
  return 65504;
}
template <>
inline double epsilon<__nv_bfloat16>() {
  return 0x1p-7;
}
template <>
inline double epsilon<__half>() {
  return 0x1p-10;
}
#endif

/// Type for bitwise comparison of arrays: T, or for 16-bit types their bits.
template <typename T>
using Raw = std::conditional_t<kIsNarrow<T>, std::uint16_t, T>;

template <typename T>
[[nodiscard]] Raw<T> raw_of(T value) {
  if constexpr (kIsNarrow<T>) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
  } else {
    return value;
  }
}

/// Values rounded to T, as an operation on T sees them.
template <typename T>
[[nodiscard]] std::vector<double> rounded_to(std::vector<double> values) {
  for (double& value : values) value = to_double(from_double<T>(value));
  return values;
}
/// Raw values of T nearest to `values`.
template <typename T>
[[nodiscard]] std::vector<Raw<T>> raw_values(const std::vector<double>& values) {
  std::vector<Raw<T>> raw;
  raw.reserve(values.size());
  for (const double value : values) raw.push_back(raw_of(from_double<T>(value)));
  return raw;
}

}  // namespace voca::kernels::testing
