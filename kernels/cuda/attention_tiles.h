#pragma once

#include "kernels/cuda/dropout.h"
#include "kernels/cuda/tensor_core.h"

// What the attention kernels share: tiles of rows in shared memory, their products on the tensor cores, the
// mask. A warp holds 16 rows of a product as kernels/cuda/tensor_core.h lays out C: c[n][i] is column block n
// (8 columns), element i.

namespace voca::kernels::cuda {

inline constexpr int kAttentionThreads = 128;
inline constexpr int kAttentionWarps = kAttentionThreads / kWarp;
/// Rows of a block's own tile: sixteen a warp.
inline constexpr int kTileRows = 16 * kAttentionWarps;
inline constexpr float kLog2E = 1.44269504F;

/// Elements from one row of a tile to the next: an odd number of 16-byte pieces, so that the eight rows of an
/// ldmatrix lie in different banks.
template <int kHead>
inline constexpr int kPitch = kHead + 8;

/// Starts copying `kRows` rows of one head from row `first` on; rows from `length` on become zeros.
template <int kRows, int kHead, typename T>
SIMT_DEVICE void load_tile(T* tile, const T* head, std::int64_t stride, std::int64_t first,
                           std::int64_t length) {
  constexpr int kPieces = kHead / 8;
  for (int piece = thread_index(); piece < kRows * kPieces; piece += kAttentionThreads) {
    const int row = piece / kPieces;
    const int column = piece % kPieces * 8;
    const bool valid = first + row < length;
    simt::cp_async_16(tile + row * kPitch<kHead> + column, head + (valid ? first + row : 0) * stride + column,
                      valid);
  }
}

/// Columns [16 k, 16 k + 16) of the 16 rows at `rows`, as operand A.
template <int kHead, typename T>
SIMT_DEVICE void load_a(std::uint32_t (&a)[4], const T* rows, int k) {
  simt::ldmatrix_x4(a, rows + lane_index() % 16 * kPitch<kHead> + k * 16 + lane_index() / 16 * 8);
}

/// c += A · Bᵀ over columns [16 k, 16 k + 16): B's rows are the kColumns rows of a tile.
template <int kColumns, int kHead, typename T>
SIMT_DEVICE void multiply_rows(float (&c)[kColumns / 8][4], const std::uint32_t (&a)[4], const T* tile,
                               int k) {
  const int lane = lane_index();
  const T* rows = tile + (lane % 8 + lane / 16 * 8) * kPitch<kHead> + k * 16 + lane / 8 % 2 * 8;
  SIMT_UNROLL
  for (int n = 0; n < kColumns / 16; ++n) {
    std::uint32_t b[4];
    simt::ldmatrix_x4(b, rows + n * 16 * kPitch<kHead>);
    simt::mma_m16n8k16(c[2 * n], a, b[0], b[1], T{});
    simt::mma_m16n8k16(c[2 * n + 1], a, b[2], b[3], T{});
  }
}

/// c = A · Bᵀ: A the 16 rows at `rows`, B the kColumns rows of a tile.
template <int kColumns, int kHead, typename T>
SIMT_DEVICE void row_products(float (&c)[kColumns / 8][4], const T* rows, const T* tile) {
  SIMT_UNROLL
  for (int n = 0; n < kColumns / 8; ++n) {
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) c[n][i] = 0;
  }
  SIMT_UNROLL
  for (int k = 0; k < kHead / 16; ++k) {
    std::uint32_t a[4];
    load_a<kHead>(a, rows, k);
    multiply_rows<kColumns, kHead>(c, a, tile, k);
  }
}

/// c += P · B: P (16 × kDepth) held as a product is, rounded to T; B the kDepth rows of a tile.
template <int kDepth, int kHead, typename T>
SIMT_DEVICE void accumulate(float (&c)[kHead / 8][4], const float (&p)[kDepth / 8][4], const T* tile) {
  const int lane = lane_index();
  SIMT_UNROLL
  for (int k = 0; k < kDepth / 16; ++k) {
    const std::uint32_t a[4] = {pack(p[2 * k][0], p[2 * k][1], T{}), pack(p[2 * k][2], p[2 * k][3], T{}),
                                pack(p[2 * k + 1][0], p[2 * k + 1][1], T{}),
                                pack(p[2 * k + 1][2], p[2 * k + 1][3], T{})};
    SIMT_UNROLL
    for (int n = 0; n < kHead / 16; ++n) {
      std::uint32_t b[4];
      simt::ldmatrix_x4_transposed(b, tile + (k * 16 + lane % 16) * kPitch<kHead> + n * 16 + lane / 16 * 8);
      simt::mma_m16n8k16(c[2 * n], a, b[0], b[1], T{});
      simt::mma_m16n8k16(c[2 * n + 1], a, b[2], b[3], T{});
    }
  }
}

/// Writes a warp's 16 rows, times `factor`, to rows [first, first + 16) of a head, those below `length`.
template <int kHead, typename T>
SIMT_DEVICE void store_rows(T* head, std::int64_t stride, std::int64_t first, std::int64_t length,
                            const float (&factor)[2], const float (&c)[kHead / 8][4]) {
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const std::int64_t row = first + lane_index() / 4 + 8 * half;
    if (row >= length) continue;
    T* out = head + row * stride + lane_index() % 4 * 2;
    SIMT_UNROLL
    for (int n = 0; n < kHead / 8; ++n) {
      const std::uint32_t pair = pack(c[n][2 * half] * factor[half], c[n][2 * half + 1] * factor[half], T{});
      simt::store_4(out + n * 8, pair);
    }
  }
}

/// The 16 × 16 tiles of the mask of one (batch, head).
struct TileMask {
  const Mask& mask;
  std::int64_t base;  ///< decision of its first element
  std::int64_t tiles_of_a_row;

  /// Decision 0 of the lane's eight in the tile with query rows from 16 · i and keys from 16 · j on.
  SIMT_DEVICE std::int64_t first(std::int64_t i, std::int64_t j) const {
    return base + (i * tiles_of_a_row + j) * 256 + lane_index() * kOctet;
  }
};

/// The same, bit e set where decision e keeps.
SIMT_DEVICE unsigned octet_decisions(const Mask& mask, std::int64_t first) {
  float factors[kOctet];
  octet_factors(mask, first, factors);
  unsigned bits = 0;
  SIMT_UNROLL
  for (int e = 0; e < kOctet; ++e) bits |= factors[e] != 0.0F ? 1U << e : 0U;
  return bits;
}

}  // namespace voca::kernels::cuda
