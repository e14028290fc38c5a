#pragma once

#include "kernels/cuda/elements.h"
#include "kernels/types.h"

// Sums over rows in two steps and a fixed order: blocks write one row of partial sums per chunk of rows
// (RowChunks: enough to fill any device, few enough that the partial sums are a small part of the memory
// traffic), and a second kernel adds them.

namespace voca::kernels::cuda {

/// Arguments of add_partial_sums(), for up to three arrays.
template <typename T>
struct PartialSums {
  std::int64_t chunks = 0;
  std::int64_t columns = 0;
  std::int64_t arrays = 1;          ///< arrays per chunk in `partials`
  const float* partials = nullptr;  ///< (chunks, arrays, columns)
  T* out[3] = {};                   ///< each (columns), accumulated into; nulls only at the end
};

inline constexpr int kPartialThreads = 1024;

// A block takes 32 columns of array blockIdx.y; its warps share the chunks.
template <typename T>
__global__ void __launch_bounds__(kPartialThreads) add_partial_sums_kernel(PartialSums<T> args) {
  constexpr int kSlices = kPartialThreads / kWarp;
  SIMT_SHARED(float, sums, [kSlices][kWarp]);
  const std::int64_t column = block_index() * kWarp + lane_index();
  float sum = 0;
  if (column < args.columns) {
    for (std::int64_t chunk = warp_index(); chunk < args.chunks; chunk += kSlices)
      sum += args.partials[(chunk * args.arrays + blockIdx.y) * args.columns + column];
  }
  sums[warp_index()][lane_index()] = sum;
  __syncthreads();
  if (warp_index() != 0 || column >= args.columns) return;
  T* out = (blockIdx.y == 0 ? args.out[0] : blockIdx.y == 1 ? args.out[1] : args.out[2]) + column;
  float total = 0;
  SIMT_UNROLL
  for (int slice = 0; slice < kSlices; ++slice) total += sums[slice][lane_index()];
  *out = from_float<T>(to_float(*out) + total);
}

template <typename T>
void add_partial_sums(const PartialSums<T>& args, Stream stream) {
  unsigned wanted = 0;
  while (wanted < 3 && args.out[wanted] != nullptr) ++wanted;
  const dim3 grid(static_cast<unsigned>(divide_up(args.columns, kWarp)), wanted);
  simt::launch("add_partial_sums", add_partial_sums_kernel<T>, {grid, dim3(kPartialThreads), 0, stream},
               args);
}

}  // namespace voca::kernels::cuda
