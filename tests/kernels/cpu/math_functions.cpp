#include "tests/kernels/cpu/math_functions.h"

#include "kernels/compiled_levels.h"
#include "kernels/cpu/levels.h"

namespace voca::kernels::testing {

#define VOCA_DECLARE(level, name)            \
  inline namespace level {                   \
  extern const MathFunctions kMathFunctions; \
  }
VOCA_CPU_LEVELS(VOCA_DECLARE)
#undef VOCA_DECLARE

const MathFunctions& math_functions() {
#define VOCA_ADDRESS(level, name) &level::kMathFunctions,
  static const MathFunctions* const of_level[] = {VOCA_CPU_LEVELS(VOCA_ADDRESS)};
#undef VOCA_ADDRESS
  return *of_level[cpu::level()];
}

}  // namespace voca::kernels::testing
