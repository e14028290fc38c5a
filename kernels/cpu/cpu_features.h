#pragma once

#include <string>

namespace voca::kernels::cpu {

/// Instruction set extension that the CPU kernels need and this machine lacks, e.g. "AVX-512"; empty if none.
/// Called first by the program, so that an older machine reports an error instead of SIGILL.
[[nodiscard]] std::string missing_instruction_set();

/// -march value that the CPU kernels were compiled with and its widest vector extension, for `doctor`.
[[nodiscard]] std::string instruction_set();

/// Sets the number of threads of the kernels, n ≥ 1, for the whole process; results do not depend on it. The
/// default is that of OpenMP (OMP_NUM_THREADS, else the cores this process may run on).
void set_threads(int n);
[[nodiscard]] int threads();

}  // namespace voca::kernels::cpu
