#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/core/dtype.h"

namespace voca::engine {

/// Overwrites `sum` (elements) with parts[0] + parts[1] + …, in this order; `parts` (count, elements) must
/// not overlap it. float32, float64, int32 or int64; throws InternalError for other types.
void sum_in_rank_order(DType dtype, const std::byte* parts, int count, std::int64_t elements, void* sum);

}  // namespace voca::engine
