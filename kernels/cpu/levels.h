#pragma once

#include <string>

// The CPU kernels are compiled once for each instruction set of VOCA_CPU_ARCH (kernels/CMakeLists.txt), and
// kernels/cpu/dispatch.cpp calls those of the set that is chosen at start. VOCA_CPU_LEVEL is a part of the
// name of every function that they define: the linker, which keeps one function of a name, must not take one
// for another processor.

namespace voca::kernels::cpu {

/// Index of the instruction set whose kernels run, in the order of VOCA_CPU_ARCH: the one that the
/// environment variable VOCA_CPU_ARCH names, else the last of those that this processor has. Decided by the
/// first call. Throws std::runtime_error, which says what is missing, if there is none.
[[nodiscard]] int level();

/// Its name, as of -march, and its vectors, e.g. "x86-64-v4 (AVX-512)". Throws as level() does.
[[nodiscard]] std::string instruction_set();

/// Whether it has multiply-add instructions, which round once. Sets that have them give the same bits. Throws
/// as level() does.
[[nodiscard]] bool multiply_adds();

}  // namespace voca::kernels::cpu
