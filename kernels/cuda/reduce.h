#pragma once

#include "kernels/cuda/simt.h"

// Reductions whose order is fixed by the shape of the launch: the same bits every time.

namespace voca::kernels::cuda {

/// Σ over the warp, in every lane.
template <typename S>
SIMT_DEVICE S warp_sum(S value) {
  SIMT_UNROLL
  for (int distance = simt::kWarp / 2; distance > 0; distance /= 2)
    value += __shfl_xor_sync(simt::kFullWarp, value, distance);
  return value;
}

/// max over the warp, in every lane; NaNs are passed over.
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

/// Σ over a block of kThreads, in every thread. A block may call it again after another barrier only.
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
