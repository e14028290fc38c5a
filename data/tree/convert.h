#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/core/dtype.h"

namespace voca::data {

/// Converts `count` numbers of type kF16 or kF32 at `in` to `to`, which is as wide or wider, at `out`. Exact.
/// `in` may be the tail of out's own memory (in + count × size_of(from) == the end of out): every number is
/// read before it is overwritten. `in` may be unaligned.
void widen(engine::DType from, const std::byte* in, std::int64_t count, engine::DType to, void* out);

struct NarrowResult {
  std::int64_t not_finite = -1;  ///< index of the first NaN or infinity in the input, or −1
  std::int64_t overflow = -1;    ///< index of the first finite number that became infinite, or −1
};

/// Converts `count` numbers of type kF16, kF32 or kF64 at `in` to kF16 or kF32 at `out` (to nearest, ties to
/// even). The buffers must not overlap.
NarrowResult narrow(engine::DType from, const std::byte* in, std::int64_t count, engine::DType to,
                    std::byte* out);

/// Index of the first NaN or infinity among `count` numbers of type kF16, kF32 or kF64, or −1.
[[nodiscard]] std::int64_t first_not_finite(engine::DType dtype, const std::byte* in, std::int64_t count);

}  // namespace voca::data
