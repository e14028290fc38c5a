#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/parallel.h"
#include "kernels/types.h"

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

/// Elements per chunk of parallel work: a few microseconds, and the chunks of all arrays of an element-wise
/// operation fit the L2 cache.
inline constexpr std::int64_t kChunkElements = 16384;

/// Calls f(begin, end) on all threads for consecutive chunks of [0, n), each of length `size` except the
/// last.
template <typename F>
void for_chunks(std::int64_t n, std::int64_t size, const F& f) {
  parallel_for(divide_up(n, size),
               [&](std::int64_t chunk) { f(chunk * size, std::min(n, (chunk + 1) * size)); });
}

/// for_chunks over rows of `columns` elements, with enough rows per chunk for kChunkElements.
template <typename F>
void for_row_chunks(std::int64_t rows, std::int64_t columns, const F& f) {
  for_chunks(rows, divide_up(kChunkElements, std::max<std::int64_t>(columns, 1)), f);
}

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
