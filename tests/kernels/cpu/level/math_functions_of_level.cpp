#include "kernels/cpu/math.h"
#include "tests/kernels/cpu/math_functions.h"

// Compiled once for each instruction set, with the kernels' options.

namespace voca::kernels::testing {
inline namespace VOCA_CPU_LEVEL {

extern const MathFunctions kMathFunctions;
const MathFunctions kMathFunctions {
#if defined(__FMA__) || defined(__aarch64__)
  true,
#else
  false,
#endif
      [](float x) { return cpu::exponential(x); }, [](float u) {
        const cpu::Normal<float> normal = cpu::normal(u);
        return CdfAndPdf{normal.cdf, normal.pdf};
      },
};

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::testing
