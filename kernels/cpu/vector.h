#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/backend.h"

// Vectors as wide as the registers of the instruction set that the kernels are compiled for.

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

#if defined(__AVX512F__)
inline constexpr std::size_t kVectorBytes = 64;
inline constexpr int kVectorRegisters = 32;
#elif defined(__AVX__)
inline constexpr std::size_t kVectorBytes = 32;
inline constexpr int kVectorRegisters = 16;
#elif defined(__aarch64__)
inline constexpr std::size_t kVectorBytes = 16;
inline constexpr int kVectorRegisters = 32;
#else
inline constexpr std::size_t kVectorBytes = 16;
inline constexpr int kVectorRegisters = 16;
#endif

namespace detail {
template <typename T>
struct VectorOf {
  using Type [[gnu::vector_size(kVectorBytes), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
};
}  // namespace detail

/// A vector of T. A pointer to one may point at any T, of which the vector holds the first kLanes<T>.
template <typename T>
using Vector = typename detail::VectorOf<T>::Type;

template <typename T>
inline constexpr int kLanes = static_cast<int>(kVectorBytes / sizeof(T));

template <typename T>
[[nodiscard]] inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}

template <typename T>
inline void store(T* to, const Vector<T>& vector) {
  *reinterpret_cast<Vector<T>*>(to) = vector;
}

/// a · b + c, rounded once if the processor has such an instruction, whatever -ffp-contract says.
template <typename T>
[[nodiscard]] inline Vector<T> multiply_add(const Vector<T>& a, const Vector<T>& b, const Vector<T>& c) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) {
    return _mm512_fmadd_ps(a, b, c);
  } else {
    return _mm512_fmadd_pd(a, b, c);
  }
#elif defined(__FMA__)
  if constexpr (std::is_same_v<T, float>) {
    return _mm256_fmadd_ps(a, b, c);
  } else {
    return _mm256_fmadd_pd(a, b, c);
  }
#elif defined(__aarch64__)
  if constexpr (std::is_same_v<T, float>) {
    return vfmaq_f32(c, a, b);
  } else {
    return vfmaq_f64(c, a, b);
  }
#else
  return a * b + c;
#endif
}

/// Products of the lower halves of the lanes of a with b. A compiler does not see that a multiplication of
/// 64-bit lanes is one of 32-bit halves, for which every processor has an instruction.
[[nodiscard]] inline Vector<std::uint64_t> multiply_low_halves(const Vector<std::uint64_t>& a,
                                                               std::uint32_t b) {
#if defined(__AVX512F__)
  // With a mask of ones, because GCC 12 warns of the unmasked one (GCC bug 105593).
  return reinterpret_cast<Vector<std::uint64_t>>(_mm512_maskz_mul_epu32(
      0xFF, reinterpret_cast<__m512i>(a), _mm512_set1_epi64(static_cast<long long>(b))));
#elif defined(__AVX2__)
  return reinterpret_cast<Vector<std::uint64_t>>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(static_cast<long long>(b))));
#elif defined(__SSE2__) && !defined(__AVX__)
  return reinterpret_cast<Vector<std::uint64_t>>(
      _mm_mul_epu32(reinterpret_cast<__m128i>(a), _mm_set1_epi64x(static_cast<long long>(b))));
#elif defined(__aarch64__)
  return vmull_u32(vmovn_u64(a), vdup_n_u32(b));
#else
  return (a & std::uint64_t{0xFFFFFFFFU}) * std::uint64_t{b};
#endif
}

namespace detail {
/// Exchanges lanes [kDistance, 2 kDistance) of every 2 · kDistance lanes of x with lanes [0, kDistance) of y.
template <typename T, int kDistance, int... kLane>
inline void exchange(Vector<T>& x, Vector<T>& y, std::integer_sequence<int, kLane...> /*lanes*/) {
  constexpr int kOther = kLanes<T>;  // first lane of y in a shuffle of x and y
  const Vector<T> first = x;
  const Vector<T> second = y;
  x = __builtin_shufflevector(first, second,
                              ((kLane & kDistance) != 0 ? kOther + kLane - kDistance : kLane)...);
  y = __builtin_shufflevector(first, second,
                              ((kLane & kDistance) != 0 ? kOther + kLane : kLane + kDistance)...);
}
}  // namespace detail

/// Transposes the square matrix whose rows are `rows`.
template <typename T, int kDistance = 1>
inline void transpose(Vector<T> (&rows)[kLanes<T>]) {
  if constexpr (kDistance < kLanes<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if ((i & kDistance) == 0) {
        detail::exchange<T, kDistance>(rows[i], rows[i + kDistance],
                                       std::make_integer_sequence<int, kLanes<T>>{});
      }
    }
    transpose<T, 2 * kDistance>(rows);
  }
}

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
