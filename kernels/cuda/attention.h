#pragma once

#include <cmath>

#include "kernels/attention.h"
#include "kernels/cuda/attention_tiles.h"

// Addressing of heads, and dispatch from head size to kernel.

namespace voca::kernels::cuda {

/// Rows of one (batch, head) of an operand (batch, length, heads, head size) with row stride `stride`.
template <typename T>
SIMT_DEVICE HeadRows<T> head_rows(T* array, const AttentionShape& shape, std::int64_t matrix,
                                  std::int64_t length, std::int64_t stride) {
  const std::int64_t offset = matrix / shape.heads * length * stride + matrix % shape.heads * shape.head_size;
  return {array + offset, static_cast<int>(stride), static_cast<int>(length)};
}

SIMT_DEVICE TileMask tile_mask(const Mask& mask, const AttentionShape& shape, std::int64_t matrix) {
  const std::uint64_t first =
      static_cast<std::uint64_t>(matrix) * attention_mask_size(shape.query_length, shape.key_length);
  return {mask, (mask.dropout.first_element + first) / kVec8 + static_cast<unsigned>(lane_index()),
          static_cast<unsigned>(divide_up(shape.key_length, 16))};
}

/// Tile of a block. Consecutive blocks take the tiles of one (batch, head), so its other operands stay in the
/// L2 cache.
struct BlockTile {
  std::int64_t matrix;  ///< batch · heads + head
  int first_row;        ///< first row of the tile

  SIMT_DEVICE explicit BlockTile(std::int64_t length) {
    const auto tiles = static_cast<unsigned>(divide_up(length, kTileRows));
    matrix = blockIdx.x / tiles;
    first_row = static_cast<int>(blockIdx.x % tiles) * kTileRows;
  }
};
[[nodiscard]] inline dim3 tile_blocks(const AttentionShape& shape, std::int64_t length) {
  return dim3(static_cast<unsigned>(shape.batch * shape.heads * divide_up(length, kTileRows)));
}

[[nodiscard]] inline float softmax_scale(const AttentionShape& shape) {
  return 1.0F / std::sqrt(static_cast<float>(shape.head_size));
}

/// Throws Error unless the fused kernels support the shape, the mask is aligned and `aligned` is true.
void check_attention(const AttentionShape& shape, const Mask& mask, bool aligned);

/// Calls f.template operator()<kHead>() with the given head size.
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
