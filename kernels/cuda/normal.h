#pragma once

#include "kernels/cuda/simt.h"

namespace voca::kernels::cuda {

/// The standard normal distribution: Φ(u) and φ(u).
struct Normal {
  float cdf;
  float pdf;
};

/// Φ to 2e-7 absolute, with one exponential that φ shares: Φ(−a) = e^{−a²/2} · q · P(q), q = 1/(1 + 0.35 a).
/// Form and coefficients are those of kernels/cpu/math.h, where they are derived.
SIMT_DEVICE Normal normal(float u) {
  const float a = fabsf(u);
  const float bell = __expf(-0.5F * u * u);
  const float q = __fdividef(1.0F, 1.0F + 0.35F * a);
  float p = -2.915787285e-2F;
  p = p * q + 1.440308577e-1F;
  p = p * q - 2.558388783e-1F;
  p = p * q + 1.593195550e-1F;
  p = p * q - 2.321225929e-2F;
  p = p * q + 1.055524636e-1F;
  p = p * q + 1.198212971e-1F;
  p = p * q + 1.398635142e-1F;
  p = p * q + 1.396213069e-1F;
  const float tail = bell * (q * p);
  return {u < 0.0F ? tail : 1.0F - tail, 0.398942280F * bell};
}

}  // namespace voca::kernels::cuda
