#pragma once

#include <type_traits>

// Tolerances of all kernel tests. The error of an array is max |got − want| / max |want|, where `want` is a
// naive computation in double from the same inputs.

namespace voca::kernels::testing {

struct Tolerance {
  double float32;
  double float64;

  template <typename T>
  [[nodiscard]] constexpr double of() const {
    return std::is_same_v<T, double> ? float64 : float32;
  }
};

/// A few roundings per element, and polynomials accurate to 2 ulp (float epsilon is 1.2e-7).
inline constexpr Tolerance kElementwise{1e-6, 1e-14};
/// Row statistics and sums of a few hundred terms, whose rounding errors grow as a random walk: √1000 · ε/2.
inline constexpr Tolerance kReduction{5e-6, 1e-13};
/// GEMMs and sums of up to 4096 terms of either sign, whose result is about √k times the size of a term.
inline constexpr Tolerance kGemm{1e-5, 1e-13};
/// Two GEMMs and a softmax in sequence; in backward, dP and delta partly cancel.
inline constexpr Tolerance kAttention{2e-5, 1e-12};
/// Fourth-order central differences with step 1e-3: truncation h⁴ = 1e-12 and rounding ε/h = 1e-13, times the
/// size of the derivatives; 1e-6 is the accuracy that the model guarantees.
inline constexpr double kFiniteDifference = 1e-6;

}  // namespace voca::kernels::testing
