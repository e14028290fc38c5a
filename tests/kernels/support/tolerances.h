#pragma once

#include <type_traits>

// Every tolerance of the kernel tests. An error is max |got − want| over an array divided by max |want| over
// it, want being a naive computation in double from the same inputs.

namespace voca::kernels::testing {

struct Tolerance {
  double float32;
  double float64;

  template <typename T>
  [[nodiscard]] constexpr double of() const {
    return std::is_same_v<T, double> ? float64 : float32;
  }
};

/// A few roundings an element, and polynomials good to 2 ulp (float epsilon is 1.2e-7).
inline constexpr Tolerance kElementwise{1e-6, 1e-14};
/// Row statistics and sums of some hundreds of terms, whose roundings add up as a random walk: √1000 · ε/2.
inline constexpr Tolerance kReduction{5e-6, 1e-13};
/// Products and sums of up to 4096 terms of either sign, whose result is itself √k times a term.
inline constexpr Tolerance kProduct{1e-5, 1e-13};
/// Two products and a softmax one after another; backward cancels dP against delta.
inline constexpr Tolerance kAttention{2e-5, 1e-12};
/// Central differences of fourth order with step 1e-3: truncation h⁴ = 1e-12 and rounding ε/h = 1e-13 times
/// the derivatives' size; 1e-6 is what the model promises.
inline constexpr double kFiniteDifference = 1e-6;

}  // namespace voca::kernels::testing
