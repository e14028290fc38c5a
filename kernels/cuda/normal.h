#pragma once

#include "kernels/cuda/simt.h"

namespace voca::kernels::cuda {

/// The standard normal distribution: Φ(u) and φ(u).
struct Normal {
  float cdf;
  float pdf;
};

/// Φ and φ as precisely as type T deserves, with one exponential shared: Φ(−a) = e^{−a²/2} · q · P(q), q =
/// 1/(1 + c a) (Abramowitz and Stegun 26.2.17, whose form this is). float: Φ to 2e-7 absolute; c and P are
/// those of kernels/cpu/math.h, where they are derived. 16-bit types: Φ(−a) to 3.1e-5 relative, an eighth of
/// what rounding to fp16 costs; P of degree 4, fitted for least relative error over [0, 14].
template <typename T>
SIMT_DEVICE Normal normal(float u) {
  const float a = fabsf(u);
  float bell;
  float q;
  float p;
  if constexpr (sizeof(T) == sizeof(float)) {
    bell = __expf(-0.5F * u * u);
    q = __fdividef(1.0F, 1.0F + 0.35F * a);
    p = -2.915787285e-2F;
    p = p * q + 1.440308577e-1F;
    p = p * q - 2.558388783e-1F;
    p = p * q + 1.593195550e-1F;
    p = p * q - 2.321225929e-2F;
    p = p * q + 1.055524636e-1F;
    p = p * q + 1.198212971e-1F;
    p = p * q + 1.398635142e-1F;
    p = p * q + 1.396213069e-1F;
  } else {
    bell = simt::exp2_approx(-0.721347520F * u * u);  // −½ log₂ e
    q = simt::reciprocal_approx(1.0F + 0.375F * a);
    p = -9.064276e-2F;
    p = p * q + 2.0028156e-1F;
    p = p * q + 8.356415e-2F;
    p = p * q + 1.5773393e-1F;
    p = p * q + 1.4906104e-1F;
  }
  const float tail = bell * (q * p);
  return {u < 0.0F ? tail : 1.0F - tail, 0.398942280F * bell};
}

}  // namespace voca::kernels::cuda
