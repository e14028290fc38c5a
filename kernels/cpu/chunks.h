#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/parallel.h"
#include "kernels/types.h"

namespace voca::kernels::cpu {

/// Elements worth handing to a thread in one piece: some microseconds of work, and a piece of every stream of
/// an element-wise operation fits the second-level cache.
inline constexpr std::int64_t kChunkElements = 16384;

/// Calls f(begin, end) for consecutive pieces of [0, n), each `size` long but the last, on all threads.
template <typename F>
void for_chunks(std::int64_t n, std::int64_t size, const F& f) {
  parallel_for(divide_up(n, size),
               [&](std::int64_t chunk) { f(chunk * size, std::min(n, (chunk + 1) * size)); });
}

/// The same over rows of `columns` elements, as many rows a piece as make up kChunkElements.
template <typename F>
void for_row_chunks(std::int64_t rows, std::int64_t columns, const F& f) {
  for_chunks(rows, divide_up(kChunkElements, std::max<std::int64_t>(columns, 1)), f);
}

}  // namespace voca::kernels::cpu
