#pragma once

#include "kernels/cuda/simt.h"
#include "kernels/normal_tail.h"

namespace voca::kernels::cuda {

/// Standard normal distribution: cdf = Φ(u), pdf = φ(u).
struct Normal {
  float cdf;
  float pdf;
};

/// Φ and φ with a precision that suits T, sharing one exponential. float: Φ to 2e-7 absolute, like
/// kernels/cpu/math.h. 16-bit types: Φ(−a) to 3.1e-5 relative, an eighth of the fp16 rounding error, in the
/// same form with q = 1/(1 + 0.375 a) and P of degree 4, fitted for minimal relative error over [0, 14].
template <typename T>
SIMT_DEVICE Normal normal(float u) {
  const float a = fabsf(u);
  float bell;
  float tail;
  if constexpr (sizeof(T) == sizeof(float)) {
    bell = __expf(-0.5F * u * u);
    tail = bell * normal_tail(__fdividef(1.0F, 1.0F + 0.35F * a),
                              [](float x, float y, float z) { return x * y + z; });
  } else {
    bell = simt::exp2_approx(-0.721347520F * u * u);  // −½ log₂ e
    const float q = simt::reciprocal_approx(1.0F + 0.375F * a);
    float p = -9.064276e-2F;
    p = p * q + 2.0028156e-1F;
    p = p * q + 8.356415e-2F;
    p = p * q + 1.5773393e-1F;
    p = p * q + 1.4906104e-1F;
    tail = bell * (q * p);
  }
  return {u < 0.0F ? tail : 1.0F - tail, 0.398942280F * bell};
}

}  // namespace voca::kernels::cuda
