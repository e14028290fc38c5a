#pragma once

#include <cstdint>

// Statistics are computed from z rounded to T, as stored, so that x̂ has mean 0 when backward reads z.

namespace voca::kernels::cuda {

/// Maximum width of rows that a warp holds in registers, four Vec8s per lane.
inline constexpr std::int64_t kWarpColumns = 1024;
inline constexpr int kWarpThreads = 128;
/// Threads per block of the kernels for rows of any width, which re-read rows from memory.
inline constexpr int kWideThreads = 256;

}  // namespace voca::kernels::cuda
