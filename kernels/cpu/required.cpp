#include "kernels/backend.h"

// What the compiler was allowed to use for this instruction set. A constant: no code that is compiled for a
// processor runs before it is known to be that processor's.

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

/// Names of the extensions (kernels/cpu/levels.cpp), each followed by a comma.
extern const char* const kRequired;
const char* const kRequired =
#if defined(__SSE4_2__)
    "SSE4.2,"
#endif
#if defined(__POPCNT__)
    "POPCNT,"
#endif
#if defined(__AVX__)
    "AVX,"
#endif
#if defined(__AVX2__)
    "AVX2,"
#endif
#if defined(__FMA__) || defined(__aarch64__)
    "FMA,"
#endif
#if defined(__BMI__)
    "BMI,"
#endif
#if defined(__BMI2__)
    "BMI2,"
#endif
#if defined(__AVX512F__)
    "AVX-512,"
#endif
#if defined(__AVX512BW__)
    "AVX-512BW,"
#endif
#if defined(__AVX512CD__)
    "AVX-512CD,"
#endif
#if defined(__AVX512DQ__)
    "AVX-512DQ,"
#endif
#if defined(__AVX512VL__)
    "AVX-512VL,"
#endif
#if defined(__AVX512VBMI__)
    "AVX-512VBMI,"
#endif
    "";

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
