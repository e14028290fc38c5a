#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/core/dtype.h"

namespace voca::engine {

/// sum (elements), overwritten, = parts[0] + parts[1] + … in this order; `parts` (count, elements) does not
/// overlap it. float32, float64, int32, int64; InternalError for another type.
void sum_in_rank_order(DType dtype, const std::byte* parts, int count, std::int64_t elements, void* sum);

}  // namespace voca::engine
