#pragma once

#include <cmath>

#include "kernels/attention.h"
#include "kernels/cuda/attention_tiles.h"

// Where the heads lie, and the way from a head size to its kernel.

namespace voca::kernels::cuda {

/// Offset of one (batch, head) in an array with `stride` elements a row.
SIMT_DEVICE std::int64_t head_offset(const AttentionShape& shape, std::int64_t matrix, std::int64_t length,
                                     std::int64_t stride) {
  return matrix / shape.heads * length * stride + matrix % shape.heads * shape.head_size;
}

SIMT_DEVICE TileMask tile_mask(const Mask& mask, const AttentionShape& shape, std::int64_t matrix) {
  const std::uint64_t size = attention_mask_size(shape.query_length, shape.key_length);
  return {mask, matrix * static_cast<std::int64_t>(size), divide_up(shape.key_length, 16)};
}

[[nodiscard]] inline float softmax_scale(const AttentionShape& shape) {
  return 1.0F / std::sqrt(static_cast<float>(shape.head_size));
}

/// Throws unless the fused kernels can run it.
void check_attention(const AttentionShape& shape, bool aligned);

/// Calls f.template operator()<head size>().
template <typename F>
void by_head_size(std::int64_t head_size, F f) {
  switch (head_size) {
    case 32:
      return f.template operator()<32>();
    case 64:
      return f.template operator()<64>();
    case 96:
      return f.template operator()<96>();
    default:
      return f.template operator()<128>();
  }
}

}  // namespace voca::kernels::cuda
