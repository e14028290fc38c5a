#pragma once

#include "kernels/cuda/partial_sums.h"

// Loop of operations that process rows a Vec8 at a time and sum over the rows. A block takes 32 Vec8s of
// columns and one chunk of rows, shared by its eight warps.

namespace voca::kernels::cuda {

inline constexpr int kColumnThreads = 256;
inline constexpr int kColumnWarps = kColumnThreads / kWarp;
inline constexpr int kColumnsPerBlock = kWarp * kVec8;

[[nodiscard]] inline RowChunks column_chunks(std::int64_t rows) {
  return {rows, kColumnWarps, 128};
}
[[nodiscard]] inline std::size_t column_sums_bytes(std::int64_t rows, std::int64_t columns) {
  return static_cast<std::size_t>(column_chunks(rows).count * columns) * sizeof(float);
}
[[nodiscard]] inline simt::LaunchShape column_blocks(std::int64_t rows, std::int64_t columns, Stream stream) {
  return {dim3(static_cast<unsigned>(divide_up(columns, kColumnsPerBlock)),
               static_cast<unsigned>(column_chunks(rows).count)),
          dim3(kColumnThreads), 0, stream};
}

/// For each Vec8 of the thread, calls fetched = fetch(row, column, count), then term(fetched, row, column,
/// count, values), which sets `values` to the summands. The prefetch depth is kAhead Vec8s. The sums go to
/// `partials` (chunks, columns); null omits them.
template <int kAhead, typename Fetch, typename Term>
SIMT_DEVICE void for_vec8s_of_rows(const RowChunks& chunks, std::int64_t columns, float* partials,
                                   Fetch fetch, Term term) {
  SIMT_SHARED(float, sums, [kColumnWarps][kColumnsPerBlock]);
  const std::int64_t chunk = blockIdx.y;
  const std::int64_t column = (block_index() * kWarp + lane_index()) * kVec8;
  const std::int64_t count = columns - column;
  const std::int64_t end = chunks.end(chunk);
  std::int64_t row = chunks.begin(chunk) + warp_index();
  float sum[kVec8] = {};
  if (count > 0) {
    decltype(fetch(row, column, count)) next[kAhead] = {};
    SIMT_UNROLL
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const std::int64_t later = row + ahead * kColumnWarps;
      if (later < end) next[ahead] = fetch(later, column, count);
    }
    while (row < end) {
      SIMT_UNROLL
      for (int ahead = 0; ahead < kAhead; ++ahead) {
        if (row >= end) break;
        const auto fetched = next[ahead];
        const std::int64_t later = row + kAhead * kColumnWarps;
        if (later < end) next[ahead] = fetch(later, column, count);
        float values[kVec8];
        term(fetched, row, column, count, values);
        SIMT_UNROLL
        for (int i = 0; i < kVec8; ++i) sum[i] += values[i];
        row += kColumnWarps;
      }
    }
  }
  if (partials == nullptr) return;
  // Element i of lane l is at i · 32 + l, which avoids bank conflicts.
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) sums[warp_index()][i * kWarp + lane_index()] = sum[i];
  __syncthreads();
  const int place = thread_index();
  const std::int64_t mine = (block_index() * kWarp + place % kWarp) * kVec8 + place / kWarp;
  if (mine >= columns) return;
  float total = 0;
  SIMT_UNROLL
  for (int warp = 0; warp < kColumnWarps; ++warp) total += sums[warp][place];
  partials[chunk * columns + mine] = total;
}

}  // namespace voca::kernels::cuda
