#pragma once

#include "kernels/gemm.h"

// A GEMM on the calling thread.

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

/// Size of the scratch of serial_gemm(). Reads only the sizes of `args`.
template <typename T>
[[nodiscard]] std::size_t serial_gemm_bytes(const Gemm<T>& args);

/// Computes C of `args`, of which `batch` is 1, with `scratch` in place of args.scratch.
///
/// Each element is the sum over the inner dimension in blocks of 384 products, added up in order within a
/// block by multiply-add instructions, if the processor has them. So its bits depend neither on m, n and its
/// place in C nor on the width of the vectors.
template <typename T>
void serial_gemm(const Gemm<T>& args, void* scratch);

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
