#pragma once

namespace voca::kernels {

/// Φ(−a) / e^{−a²/2} as a function of q = 1/(1 + 0.35 a), a ≥ 0: q · P(q), the form of Abramowitz and Stegun
/// 26.2.17. P has degree 8 and is fitted for minimal relative error (3e-8) on 0 ≤ a ≤ 14.5; beyond, e^{−a²/2}
/// underflows. Used by the float GELU of both backends.
///
/// multiply_add(a, b, c) gives a · b + c as the backend rounds it.
template <typename MultiplyAdd>
[[nodiscard]] constexpr float normal_tail(float q, MultiplyAdd multiply_add) {
  float p = -2.915787285e-2F;
  p = multiply_add(p, q, 1.440308577e-1F);
  p = multiply_add(p, q, -2.558388783e-1F);
  p = multiply_add(p, q, 1.593195550e-1F);
  p = multiply_add(p, q, -2.321225929e-2F);
  p = multiply_add(p, q, 1.055524636e-1F);
  p = multiply_add(p, q, 1.198212971e-1F);
  p = multiply_add(p, q, 1.398635142e-1F);
  p = multiply_add(p, q, 1.396213069e-1F);
  return q * p;
}

}  // namespace voca::kernels
