#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/normal_tail.h"

// Scalar functions that GCC vectorises when called in a loop (it does not vectorise std::exp and std::erf of
// float). The float overloads use range reduction and a polynomial, without branches; the double overloads
// use the standard library. Stated errors are measured by dense sweeps (tests/kernels/cpu/math_test.cpp).

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

/// a · b + c, rounded once if the processor has such an instruction; GCC vectorises it.
[[nodiscard]] inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

/// eˣ to 1 ulp, or 1.2 without multiply-add instructions. Overflow gives +∞, underflow is gradual to 0, NaN
/// gives NaN.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2 (Cody and Waite, two-part ln 2); eʳ = 1 + r + r² p(r), where p has
/// degree 4 and is fitted for minimal relative error (3e-9, below float rounding).
[[nodiscard]] inline float exponential(float x) {
  // Outside this range the result is 0 or ∞. The comparisons are false for NaN, so NaN passes through.
  x = x < -104.0F ? -104.0F : x;
  x = x > 89.0F ? 89.0F : x;
  // Adding 1.5 · 2²³ rounds to an integer, which is then in the low bits.
  constexpr float kRound = 12582912.0F;
  const float shifted = multiply_add(x, 1.44269504F, kRound);
  const float n = shifted - kRound;
  const auto exponent =
      static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(kRound));
  const float r = multiply_add(n, -1.42860677e-6F, multiply_add(n, -0.693145752F, x));
  float p = 1.381453988e-3F;
  p = multiply_add(p, r, 8.368745127e-3F);
  p = multiply_add(p, r, 4.166839079e-2F);
  p = multiply_add(p, r, 1.666652040e-1F);
  p = multiply_add(p, r, 4.999999343e-1F);
  p = multiply_add(p, r, 1.0F);
  p = multiply_add(p, r, 1.0F);
  // 2ⁿ in two factors: n reaches −150 and +128, beyond the exponent range of one float.
  const std::int32_t half = exponent >> 1;
  const auto power = [](std::int32_t e) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(e + 127) << 23U);
  };
  return p * power(half) * power(exponent - half);
}

[[nodiscard]] inline double exponential(double x) {
  return std::exp(x);
}

/// Standard normal distribution at u: cdf = Φ(u) = (1 + erf(u/√2))/2, pdf = φ(u) = Φ'(u).
template <typename T>
struct Normal {
  T cdf;
  T pdf;
};

/// Φ to 1.6e-7 absolute (1.9e-7 without multiply-add instructions), and for u < 0 to 4e-7 · max(1, u²/2)
/// relative: the tail is computed directly, not as a difference from 1.
///
/// Φ(−a) = e^{−a²/2} · normal_tail(1/(1 + 0.35 a)), a ≥ 0. φ shares the exponential.
[[nodiscard]] inline Normal<float> normal(float u) {
  const float a = std::abs(u);
  const float bell = exponential(-0.5F * u * u);
  const float tail = normal_tail(1.0F / multiply_add(0.35F, a, 1.0F), multiply_add);
  return {u < 0.0F ? bell * tail : multiply_add(-bell, tail, 1.0F), 0.398942280F * bell};
}

[[nodiscard]] inline Normal<double> normal(double u) {
  constexpr double kSqrtHalf = 0.70710678118654752440;
  constexpr double kInverseSqrtTwoPi = 0.39894228040143267794;
  return {0.5 * std::erfc(-u * kSqrtHalf), kInverseSqrtTwoPi * std::exp(-0.5 * u * u)};
}

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
