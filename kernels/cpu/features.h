#pragma once

#include <string>

namespace voca::kernels::cpu {

/// What the CPU kernels were compiled for and this machine lacks, e.g. "AVX-512"; empty when they can run
/// here. Called first thing by the program, so that a binary carried to an older machine ends in a sentence,
/// not SIGILL.
[[nodiscard]] std::string missing_instruction_set();

/// The -march the CPU kernels were compiled with and the widest vector extension that gave, for `doctor`.
[[nodiscard]] std::string instruction_set();

/// "0.3.21, Zen kernels": the BLAS that is loaded and what it chose for this machine.
[[nodiscard]] std::string blas_version();

/// Sets how many threads the kernels use, in the whole process; results do not depend on it. n ≥ 1. Without
/// it, as many as OpenMP would take (OMP_NUM_THREADS, else the cores this process may run on).
void set_threads(int n);
[[nodiscard]] int threads();

}  // namespace voca::kernels::cpu
