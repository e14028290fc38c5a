#include "data/tree/convert.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "engine/base/error.h"
#include "kernels/cpu/half.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define VOCA_F16C __attribute__((target("avx,f16c")))
#endif

namespace voca::data {
namespace {

using engine::DType;

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

#if defined(__x86_64__)
bool has_f16c() {
  // Every processor with AVX2 has F16C, whose name clang 14 does not accept here.
  static const bool present = __builtin_cpu_supports("avx2") != 0;
  return present;
}

/// Converts whole groups of eight; returns the number of elements converted. Each group is loaded before it
/// is stored, and a store never overwrites a later group of an input at the tail of the output.
VOCA_F16C std::int64_t widen_groups(const std::byte* in, std::int64_t count, float* out) {
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 2 * i));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(halves));
  }
  return i;
}

VOCA_F16C std::int64_t narrow_groups(const std::byte* in, std::int64_t count, std::byte* out) {
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 values = _mm256_loadu_ps(reinterpret_cast<const float*>(in + 4 * i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i),
                     _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  return i;
}
#else
bool has_f16c() {
  return false;
}
std::int64_t widen_groups(const std::byte*, std::int64_t, float*) {
  return 0;
}
std::int64_t narrow_groups(const std::byte*, std::int64_t, std::byte*) {
  return 0;
}
#endif

/// Whether any number is NaN or infinite (all exponent bits set). The loop vectorises well because it has no
/// early exit and its accumulator is as wide as a number; the caller searches for the index only if needed.
template <typename Bits>
bool any_not_finite(const std::byte* in, std::int64_t count, Bits exponent) {
  Bits found = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto bits =
        static_cast<Bits>(load<Bits>(in + static_cast<std::int64_t>(sizeof(Bits)) * i) & exponent);
    found = static_cast<Bits>(found | (bits == exponent ? Bits{1} : Bits{0}));
  }
  return found != 0;
}

template <typename Bits>
std::int64_t find_not_finite(const std::byte* in, std::int64_t count, Bits exponent) {
  if (!any_not_finite(in, count, exponent)) return -1;
  std::int64_t i = 0;
  while ((load<Bits>(in + static_cast<std::int64_t>(sizeof(Bits)) * i) & exponent) != exponent) ++i;
  return i;
}

/// Converts the numbers [first, count) one by one with `f`. Each is read before it can be overwritten, if
/// `in` is the tail of the output.
template <typename From, typename F>
void convert_each(const std::byte* in, std::int64_t first, std::int64_t count, void* out, F f) {
  for (std::int64_t i = first; i < count; ++i) {
    const auto value = f(load<From>(in + static_cast<std::int64_t>(sizeof(From)) * i));
    std::memcpy(static_cast<std::byte*>(out) + static_cast<std::int64_t>(sizeof value) * i, &value,
                sizeof value);
  }
}

/// Rounds inexact values to the odd float, so that a second rounding to float16 gives the float16 nearest to
/// the double (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
float to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  if (!std::isfinite(nearest) || static_cast<double>(nearest) == value) return nearest;
  const auto bits = std::bit_cast<std::uint32_t>(nearest);
  if ((bits & 1U) != 0) return nearest;
  const bool away = std::abs(static_cast<double>(nearest)) > std::abs(value);
  return std::bit_cast<float>(away ? bits - 1U : bits + 1U);
}

}  // namespace

std::int64_t first_not_finite(DType dtype, const std::byte* in, std::int64_t count) {
  switch (dtype) {
    case DType::kF16:
      return find_not_finite<std::uint16_t>(in, count, 0x7C00U);
    case DType::kF32:
      return find_not_finite<std::uint32_t>(in, count, 0x7F800000U);
    default:
      return find_not_finite<std::uint64_t>(in, count, 0x7FF0000000000000U);
  }
}

void widen(DType from, const std::byte* in, std::int64_t count, DType to, void* out) {
  if (from == to) {
    if (in != out) std::memmove(out, in, static_cast<std::size_t>(count) * engine::size_of(to));
  } else if (from == DType::kF32) {
    convert_each<float>(in, 0, count, out, [](float value) { return static_cast<double>(value); });
  } else if (to == DType::kF32) {
    const std::int64_t first = has_f16c() ? widen_groups(in, count, static_cast<float*>(out)) : 0;
    convert_each<std::uint16_t>(in, first, count, out, kernels::cpu::half_to_float);
  } else {
    convert_each<std::uint16_t>(in, 0, count, out, [](std::uint16_t half) {
      return static_cast<double>(kernels::cpu::half_to_float(half));
    });
  }
}

NarrowResult narrow(DType from, const std::byte* in, std::int64_t count, DType to, std::byte* out) {
  VOCA_CHECK(to == DType::kF16 || to == DType::kF32);
  VOCA_CHECK(from == DType::kF16 || from == DType::kF32 || from == DType::kF64);
  NarrowResult result;
  result.not_finite = first_not_finite(from, in, count);
  if (result.not_finite >= 0) return result;
  if (engine::size_of(from) <= engine::size_of(to)) {
    widen(from, in, count, to, out);
    return result;
  }
  if (from == DType::kF32) {
    const std::int64_t first = has_f16c() ? narrow_groups(in, count, out) : 0;
    convert_each<float>(in, first, count, out, kernels::cpu::float_to_half);
  } else if (to == DType::kF32) {
    convert_each<double>(in, 0, count, out, [](double value) { return static_cast<float>(value); });
  } else {
    convert_each<double>(in, 0, count, out, [](double v) { return kernels::cpu::float_to_half(to_odd(v)); });
  }
  result.overflow = first_not_finite(to, out, count);
  return result;
}

}  // namespace voca::data
