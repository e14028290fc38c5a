#include "kernels/cpu/cpu_features.h"

#include <omp.h>

#include <atomic>

namespace voca::kernels::cpu {

namespace {
// Process-wide; omp_set_num_threads would affect only the calling thread.
std::atomic<int> configured_threads{0};
}  // namespace

std::string missing_instruction_set() {
  // A check compiles to nothing if the kernels do not use the extension.
#if defined(__x86_64__)
  __builtin_cpu_init();
#if defined(__AVX512F__)
  if (__builtin_cpu_supports("avx512f") == 0) return "AVX-512";
#endif
#if defined(__AVX2__)
  if (__builtin_cpu_supports("avx2") == 0) return "AVX2";
#endif
#if defined(__FMA__)
  if (__builtin_cpu_supports("fma") == 0) return "FMA";
#endif
#endif
  return {};
}

std::string instruction_set() {
#if defined(__AVX512F__)
  return "-march=" VOCA_CPU_ARCH " (AVX-512)";
#elif defined(__AVX2__)
  return "-march=" VOCA_CPU_ARCH " (AVX2)";
#else
  return "-march=" VOCA_CPU_ARCH;
#endif
}

void set_threads(int n) {
  configured_threads = n;
}

int threads() {
  const int configured = configured_threads;
  return configured > 0 ? configured : omp_get_max_threads();
}

}  // namespace voca::kernels::cpu
