#pragma once

namespace voca::kernels::testing {

struct CdfAndPdf {
  float cdf;
  float pdf;
};

/// Functions of kernels/cpu/math.h as compiled for one instruction set, like the kernels.
struct MathFunctions {
  bool multiply_adds;  ///< rounded once
  float (*exponential)(float);
  CdfAndPdf (*normal)(float);
};

/// Those of the instruction set whose kernels run.
[[nodiscard]] const MathFunctions& math_functions();

}  // namespace voca::kernels::testing
