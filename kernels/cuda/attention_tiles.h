#pragma once

#include "kernels/cuda/dropout.h"
#include "kernels/cuda/tensor_core.h"

// Shared parts of the attention kernels: row tiles in shared memory, MMAs of them, and the dropout mask. A
// warp holds 16 rows of a result in the layout of C in kernels/cuda/tensor_core.h: c[n][i] is element i of
// column block n (8 columns).

namespace voca::kernels::cuda {

inline constexpr int kAttentionThreads = 128;
inline constexpr int kAttentionWarps = kAttentionThreads / kWarp;
/// Rows of the tile owned by a block: 16 per warp.
inline constexpr int kTileRows = 16 * kAttentionWarps;
/// Rows of each of the two tiles of a pipeline stage. A block loops over the stages; later stages are in
/// flight while one is processed.
inline constexpr int kStageRows = 32;
/// Elements per stage.
template <int kHead>
inline constexpr int kStage = 2 * kStageRows*(kHead + 8);
inline constexpr float kLog2E = 1.44269504F;

/// Row stride of a tile, in elements: an odd number of 16-byte pieces, so that the eight rows of an ldmatrix
/// lie in different banks.
template <int kHead>
inline constexpr int kPitch = kHead + 8;

/// Rows of one (batch, head) of an operand.
template <typename T>
struct HeadRows {
  T* head;     ///< first row
  int stride;  ///< row stride, in elements
  int length;  ///< number of rows
};

/// Starts an asynchronous copy of `kRows` rows of a head from row `first` on; rows beyond its length are
/// zero-filled. Four threads copy a row, so each thread increments a single address.
template <int kRows, int kHead, typename T>
SIMT_DEVICE void load_tile(T* tile, const HeadRows<const T>& rows, int first) {
  constexpr int kThreadsOfRow = kAttentionThreads / kStageRows;
  SIMT_UNROLL
  for (int part = 0; part < kRows; part += kStageRows) {
    const int row = part + thread_index() / kThreadsOfRow;
    const int column = thread_index() % kThreadsOfRow * kVec8;
    const bool valid = first + row < rows.length;
    const T* source = rows.head + static_cast<std::int64_t>(valid ? first + row : 0) * rows.stride + column;
    T* target = tile + row * kPitch<kHead> + column;
    SIMT_UNROLL
    for (int c = 0; c < kHead; c += kThreadsOfRow * kVec8) simt::cp_async_16(target + c, source + c, valid);
  }
}

/// Loads columns [16 k, 16 k + 16) of the 16 rows at `rows` as operand A.
template <int kHead, typename T>
SIMT_DEVICE void load_a(std::uint32_t (&a)[4], const T* rows, int k) {
  simt::ldmatrix_x4(a, rows + lane_index() % 16 * kPitch<kHead> + k * 16 + lane_index() / 16 * 8);
}

/// c += A · Bᵀ over columns [16 k, 16 k + 16), where B is the kColumns rows of a tile.
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

/// The 16 rows of operand A of a warp: held in registers if kHeld, else read from shared memory, which must
/// then stay valid.
template <int kHead, bool kHeld, typename T>
class OwnRows {
 public:
  SIMT_DEVICE explicit OwnRows(const T* rows) : rows_(rows) {
    if constexpr (kHeld) {
      SIMT_UNROLL
      for (int k = 0; k < kHead / 16; ++k) load_a<kHead>(held_[k], rows, k);
    }
  }

  /// Returns columns [16 k, 16 k + 16) as operand A.
  SIMT_DEVICE void get(std::uint32_t (&a)[4], int k) const {
    if constexpr (kHeld) {
      SIMT_UNROLL
      for (int i = 0; i < 4; ++i) a[i] = held_[k][i];
    } else {
      load_a<kHead>(a, rows_, k);
    }
  }

 private:
  const T* rows_;
  std::uint32_t held_[kHeld ? kHead / 16 : 1][4];
};

/// c = A · Bᵀ, where B is the kColumns rows of a tile.
template <int kColumns, int kHead, bool kHeld, typename T>
SIMT_DEVICE void row_products(float (&c)[kColumns / 8][4], const OwnRows<kHead, kHeld, T>& rows,
                              const T* tile) {
  SIMT_UNROLL
  for (int n = 0; n < kColumns / 8; ++n) {
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) c[n][i] = 0;
  }
  SIMT_UNROLL
  for (int k = 0; k < kHead / 16; ++k) {
    std::uint32_t a[4];
    rows.get(a, k);
    multiply_rows<kColumns, kHead>(c, a, tile, k);
  }
}

/// c += P · B, where P (16 × kDepth) is in the layout of C and rounded to T, and B is the kDepth rows of a
/// tile.
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

/// Writes the 16 rows of a warp, times `factor`, to rows [first, first + 16) of a head; skips rows beyond its
/// length.
template <int kHead, typename T>
SIMT_DEVICE void store_rows(const HeadRows<T>& rows, int first, const float (&factor)[2],
                            const float (&c)[kHead / 8][4]) {
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int row = first + lane_index() / 4 + 8 * half;
    if (row >= rows.length) continue;
    T* out = rows.head + static_cast<std::int64_t>(row) * rows.stride + lane_index() % 4 * 2;
    SIMT_UNROLL
    for (int n = 0; n < kHead / 8; ++n) {
      const std::uint32_t pair = pack(c[n][2 * half] * factor[half], c[n][2 * half + 1] * factor[half], T{});
      simt::store_4(out + n * 8, pair);
    }
  }
}

/// Mask of one (batch, head) in 16 × 16 tiles.
struct TileMask {
  const Mask& mask;
  std::uint64_t first_block;  ///< Philox call of this lane in the first tile
  unsigned tiles_of_a_row;

  /// Decisions for the eight elements of this lane in the tile at query row 16 · i and key 16 · j. Element e
  /// has query half e / 4, key half e / 2 % 2 and key parity e % 2.
  SIMT_DEVICE Vec8Decisions decisions(int i, int j) const { return {mask, bits(i, j)}; }
  /// Decisions for a transposed tile: element e has key half e / 4, query half e / 2 % 2 and query parity
  /// e % 2.
  SIMT_DEVICE Vec8Decisions transposed_decisions(int i, int j) const {
    const Philox4 pairs = bits(i, j);
    // Each word is the part of an 8 × 8 matrix held by this lane. Transposing the tile transposes each matrix
    // and swaps the two off-diagonal ones.
    return {mask,
            {{simt::transposed_8x8(pairs.word[0]), simt::transposed_8x8(pairs.word[2]),
              simt::transposed_8x8(pairs.word[1]), simt::transposed_8x8(pairs.word[3])}}};
  }

 private:
  SIMT_DEVICE Philox4 bits(int i, int j) const {
    const unsigned tile = static_cast<unsigned>(i) * tiles_of_a_row + static_cast<unsigned>(j);
    return mask.bits(first_block + static_cast<std::uint64_t>(tile) * kWarp);
  }
};

/// Position of element e of the eight tile elements of a lane in the accumulators of its two m16n8 MMAs.
SIMT_DEVICE constexpr int block_of(int e) {
  return e / 2 % 2;
}
SIMT_DEVICE constexpr int slot_of(int e) {
  return e / 4 * 2 + e % 2;
}

}  // namespace voca::kernels::cuda
