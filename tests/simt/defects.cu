#include "tests/simt/defects.h"

#include "kernels/cuda/tensor_core.h"

namespace voca::simt::testing {

namespace {

constexpr int kThreads = kDefectThreads;

template <bool kRight>
__global__ void reverse_block(const float* in, float* out) {
  SIMT_SHARED(float, values, [kThreads]);
  values[thread_index()] = in[thread_index()];
  if (kRight) __syncthreads();
  out[thread_index()] = values[kThreads - 1 - thread_index()];
}

template <bool kRight>
__global__ void reverse_twice(const float* in, float* out) {
  SIMT_SHARED(float, values, [kThreads]);
  for (int part = 0; part < 2; ++part) {
    values[thread_index()] = in[part * kThreads + thread_index()];
    __syncthreads();
    out[part * kThreads + thread_index()] = values[kThreads - 1 - thread_index()];
    if (kRight) __syncthreads();
  }
}

template <bool kRight>
__global__ void reverse_warp(const float* in, float* out) {
  SIMT_SHARED(float, values, [kThreads]);
  values[thread_index()] = in[thread_index()];
  if (kRight) __syncwarp();
  out[thread_index()] = values[thread_index() ^ 31];
}

template <bool kRight>
__global__ void reverse_warp_by_shuffled_index(const float* in, float* out) {
  SIMT_SHARED(float, values, [kThreads]);
  values[thread_index()] = in[thread_index()];
  const int neighbour = __shfl_xor_sync(kFullWarp, thread_index(), 1);
  if (kRight) __syncwarp();
  out[thread_index()] = values[neighbour];
}

template <bool kRight>
__global__ void copy_two_groups(const float* in, float* out) {
  SIMT_SHARED(float, values, [2][4 * kThreads]);
  const float* mine = in + 4 * (thread_index() % 16);
  cp_async_16(&values[0][4 * thread_index()], mine, true);
  cp_async_commit();
  cp_async_16(&values[1][4 * thread_index()], mine, thread_index() % 2 == 0);
  cp_async_commit();
  if (kRight) {
    cp_async_wait<0>();
  } else {
    cp_async_wait<1>();
  }
  out[thread_index()] = values[1][4 * thread_index() + 3];
  cp_async_wait<0>();
}

template <bool kRight>
__global__ void copy_for_a_neighbour(const float* in, float* out) {
  SIMT_SHARED(float, values, [4 * kThreads]);
  cp_async_16(values + 4 * thread_index(), in + 4 * (thread_index() % 16), true);
  cp_async_commit();
  cp_async_wait<0>();
  if (kRight) __syncthreads();
  out[thread_index()] = values[4 * (kThreads - 1 - thread_index())];
}

template <bool kRight>
__global__ void copy_refill(const float* in, float* out) {
  SIMT_SHARED(float, values, [4 * kThreads]);
  for (int part = 0; part < 2; ++part) {
    cp_async_16(values + 4 * thread_index(), in + 4 * (thread_index() % 16) + 64 * part, true);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    out[part * kThreads + thread_index()] = values[4 * (kThreads - 1 - thread_index())];
    if (kRight) __syncthreads();
  }
}

template <bool kRight>
__global__ void block_totals(const float* in, float* out) {
  const std::int64_t cell = kRight ? block_index() : block_index() / 2;
  out[cell] = in[block_index()];
}

template <bool kRight>
__global__ void add_up(const float* in, float* out) {
  if (kRight) {
    if (thread_index() != 0) return;
    float sum = 0;
    for (int i = 0; i < kThreads; ++i) sum += in[i];
    out[0] = sum;
    return;
  }
  if (thread_index() == 0) out[0] = 0;
  __syncthreads();
  out[0] += in[thread_index()];
}

template <bool kRight>
__global__ void barrier_in_a_branch(const float* in, float* out) {
  out[thread_index()] = in[thread_index()];
  if (kRight || thread_index() < 64) __syncthreads();
}

template <bool kRight>
__global__ void leave_early(const float* in, float* out) {
  if (!kRight && thread_index() >= 100) return;
  __syncthreads();
  out[thread_index()] = in[thread_index()];
}

template <bool kRight>
__global__ void shuffle_in_a_branch(const float* in, float* out) {
  const float value = in[thread_index()];
  float other = value;
  if (lane_index() < 16) {
    other = __shfl_xor_sync(kRight ? 0xFFFFU : kFullWarp, value, 1);
  } else {
    other = __shfl_xor_sync(0xFFFF0000U, value, 1);
  }
  out[thread_index()] = other;
}

template <bool kRight>
__global__ void shuffle_among_others(const float* in, float* out) {
  const float value = in[thread_index()];
  if (lane_index() < 16) {
    out[thread_index()] = __shfl_xor_sync(kRight ? 0xFFFFU : 0xFFFF0000U, value, 1);
  } else {
    out[thread_index()] = value;
  }
}

template <bool kRight>
__global__ void copy_and_leave(const float* in, float* out) {
  SIMT_SHARED(float, values, [4 * kThreads]);
  cp_async_16(values + 4 * thread_index(), in, true);
  if (kRight) {
    cp_async_commit();
    cp_async_wait<0>();
  }
  out[thread_index()] = in[thread_index()];
}

template <bool kRight>
__global__ void load_matrices(const float* in, float* out) {
  SIMT_SHARED(std::uint16_t, tile, [kThreads * 8 + 8]);
  for (int i = 0; i < 8; ++i) tile[8 * thread_index() + i] = 0;
  __syncthreads();
  std::uint32_t r[4];
  ldmatrix_x4(r, tile + 8 * thread_index() + (kRight ? 0 : 4));
  out[thread_index()] = in[thread_index()] + static_cast<float>(r[0] & 0xFFFFU);
}

template <bool kRight>
void run(Defective defect, const float* in, float* out) {
  const LaunchShape one_block{dim3(1), dim3(kThreads), 0, nullptr};
  const LaunchShape four_blocks{dim3(4), dim3(1), 0, nullptr};
  switch (defect) {
    case Defective::kMissingBarrierBeforeRead:
      return launch("reverse_block", reverse_block<kRight>, one_block, in, out);
    case Defective::kMissingBarrierBeforeOverwrite:
      return launch("reverse_twice", reverse_twice<kRight>, one_block, in, out);
    case Defective::kMissingSyncwarp:
      return launch("reverse_warp", reverse_warp<kRight>, one_block, in, out);
    case Defective::kShuffleTakenForAFence:
      return launch("reverse_warp_by_shuffled_index", reverse_warp_by_shuffled_index<kRight>, one_block, in,
                    out);
    case Defective::kAsyncCopyReadBeforeItsWait:
      return launch("copy_two_groups", copy_two_groups<kRight>, one_block, in, out);
    case Defective::kAsyncCopyReadWithoutBarrier:
      return launch("copy_for_a_neighbour", copy_for_a_neighbour<kRight>, one_block, in, out);
    case Defective::kAsyncCopyRefillWithoutBarrier:
      return launch("copy_refill", copy_refill<kRight>, one_block, in, out);
    case Defective::kBlocksShareACell:
      return launch("block_totals", block_totals<kRight>, four_blocks, in, out);
    case Defective::kThreadsShareASum:
      return launch("add_up", add_up<kRight>, one_block, in, out);
    case Defective::kDivergentBarrier:
      return launch("barrier_in_a_branch", barrier_in_a_branch<kRight>, one_block, in, out);
    case Defective::kExitBeforeBarrier:
      return launch("leave_early", leave_early<kRight>, one_block, in, out);
    case Defective::kHalfWarpWithAFullMask:
      return launch("shuffle_in_a_branch", shuffle_in_a_branch<kRight>, one_block, in, out);
    case Defective::kMaskWithoutTheCaller:
      return launch("shuffle_among_others", shuffle_among_others<kRight>, one_block, in, out);
    case Defective::kAsyncCopyNeverWaitedFor:
      return launch("copy_and_leave", copy_and_leave<kRight>, one_block, in, out);
    case Defective::kMisalignedLdmatrix:
      return launch("load_matrices", load_matrices<kRight>, one_block, in, out);
  }
}

__global__ void write_past_the_end(int length, float* out) {
  SIMT_SHARED(float, values, [kThreads]);
  for (int i = 0; i <= length; ++i) values[i] = static_cast<float>(i);
  out[0] = values[0];
}

__global__ void shuffle_from_outside(float* out) {
  if (lane_index() < 16) {
    out[lane_index()] = __shfl_down_sync(0xFFFFU, static_cast<float>(lane_index()), 4);
  } else {
    out[lane_index()] = 0;
  }
}

__global__ void warp_intrinsics(const float* in, float* out) {
  const float value = in[lane_index()];
  float* mine = out + 8 * lane_index();
  mine[0] = __shfl_sync(kFullWarp, value, 5);
  mine[1] = __shfl_xor_sync(kFullWarp, value, 3);
  mine[2] = __shfl_down_sync(kFullWarp, value, 7U);
  mine[3] = __shfl_up_sync(kFullWarp, value, 2U, 8);
  mine[4] = static_cast<float>(__ballot_sync(kFullWarp, value > 0 ? 1 : 0) >> 16U);
  mine[5] = static_cast<float>(__any_sync(kFullWarp, value > 30 ? 1 : 0));
  mine[6] = static_cast<float>(__all_sync(kFullWarp, value > 30 ? 1 : 0));
  mine[7] = __shfl_sync(kFullWarp, value, 1, 4);
}

__global__ void fresh_shared_memory(float* out) {
  SIMT_SHARED(float, fixed, [kThreads]);
  SIMT_DYNAMIC_SHARED(float, dynamic);
  out[thread_index()] = fixed[thread_index()];
  out[kThreads + thread_index()] = dynamic[thread_index()];
  __syncthreads();
  // The next block must not see these values.
  fixed[thread_index()] = 1;
  dynamic[thread_index()] = 1;
}

}  // namespace

void run_defect(Defective defect, bool right, const float* in, float* out) {
  if (right) {
    run<true>(defect, in, out);
  } else {
    run<false>(defect, in, out);
  }
}

void run_shared_overflow(int length, float* out) {
  launch("write_past_the_end", write_past_the_end, {dim3(1), dim3(1), 0, nullptr}, length, out);
}

void run_shuffle_from_outside(float* out) {
  launch("shuffle_from_outside", shuffle_from_outside, {dim3(1), dim3(kWarp), 0, nullptr}, out);
}

void run_warp_intrinsics(const float* in, float* out) {
  launch("warp_intrinsics", warp_intrinsics, {dim3(1), dim3(kWarp), 0, nullptr}, in, out);
}

void run_fresh_shared_memory(float* out) {
  const LaunchShape shape{dim3(1), dim3(kThreads), kThreads * sizeof(float), nullptr};
  for (int block = 0; block < 2; ++block) launch("fresh_shared_memory", fresh_shared_memory, shape, out);
}

}  // namespace voca::simt::testing
