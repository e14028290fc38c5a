#include "engine/ops/gemm.h"

#include <algorithm>
#include <cstdint>

namespace voca::engine::ops {

int alignment_of(std::int64_t elements, DType dtype) {
  const std::int64_t bytes = elements * static_cast<std::int64_t>(size_of(dtype));
  return static_cast<int>(std::min<std::int64_t>(bytes & -bytes, 16));
}

void library_gemm(const Context& context, const LibraryGemm& args) {
  if (!context.is_dry_run()) {
    VOCA_CHECK(context.gemm_library != nullptr);
    for (const void* operand : {args.a, args.b, static_cast<const void*>(args.c), args.bias}) {
      VOCA_CHECK(reinterpret_cast<std::uintptr_t>(operand) % static_cast<std::uintptr_t>(args.alignment) ==
                 0);
    }
    context.gemm_library->gemm(args, context.stream);
  } else if (context.gemm_library != nullptr) {
    context.gemm_library->prepare(args);
  }
}

}  // namespace voca::engine::ops
