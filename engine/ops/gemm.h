#pragma once

#include "engine/ops/check.h"
#include "kernels/gemm.h"

// GEMMs of operations: kernels on the CPU, the GEMM library of the context on a GPU.

namespace voca::engine::ops {

/// LibraryGemm::alignment of operands that start at multiples of `elements` elements in memory aligned to
/// 16 bytes. Several strides may be joined by |.
[[nodiscard]] int alignment_of(std::int64_t elements, DType dtype);

/// Queues a GEMM on the context's GPU; in a dry run only records it. Throws InternalError if an operand is
/// not aligned as `args` says, because the algorithm was chosen for that alignment.
void library_gemm(const Context& context, const LibraryGemm& args);

/// Computes a GEMM, whose operands start at multiples of `elements` elements as in alignment_of(), with
/// scratch from the arena. Nothing is computed in a dry run.
template <typename T>
void gemm(Context& context, kernels::Cpu backend, kernels::Gemm<T> args, std::int64_t /*elements*/) {
  const ArenaScope scope(context.arena);
  args.scratch = context.arena.scratch("gemm scratch", scratch_bytes(backend, args)).data;
  if (!context.is_dry_run()) kernels::gemm(backend, args);
}
template <typename T>
void gemm(const Context& context, kernels::Cuda /*backend*/, const kernels::Gemm<T>& args,
          std::int64_t elements) {
  library_gemm(context, {kernels::without_type(args), kDTypeOf<T>, alignment_of(elements, kDTypeOf<T>)});
}

}  // namespace voca::engine::ops
