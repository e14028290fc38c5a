#pragma once

#include "kernels/cuda/simt.h"

// Reductions in an order that depends only on the launch shape, so results are bitwise reproducible.

namespace voca::kernels::cuda {

/// Sum over the warp, returned in every lane.
template <typename S>
SIMT_DEVICE S warp_sum(S value) {
  SIMT_UNROLL
  for (int distance = simt::kWarp / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(simt::kFullWarp, value, distance);
  return value;
}

/// Maximum over the warp, returned in every lane; ignores NaNs.
SIMT_DEVICE float warp_max(float value) {
  SIMT_UNROLL
  for (int distance = simt::kWarp / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(simt::kFullWarp, value, distance));
  return value;
}
SIMT_DEVICE double warp_max(double value) {
  SIMT_UNROLL
  for (int distance = simt::kWarp / 2; distance > 0; distance /= 2)
    value = fmax(value, __shfl_xor_sync(simt::kFullWarp, value, distance));
  return value;
}

/// Sum over a block of kThreads threads, returned in every thread. Another call needs a barrier in between.
template <int kThreads, typename S>
SIMT_DEVICE S block_sum(S value) {
  SIMT_SHARED(S, sums, [kThreads / simt::kWarp]);
  value = warp_sum(value);
  if (simt::lane_index() == 0) sums[simt::warp_index()] = value;
  __syncthreads();
  S total = 0;
  SIMT_UNROLL
  for (int warp = 0; warp < kThreads / simt::kWarp; ++warp) total += sums[warp];
  return total;
}

}  // namespace voca::kernels::cuda
