#pragma once

#include <cstdint>

// Kernels with a defect each, and the same without it (defects.cu): what the executor must find, and must
// not.

namespace voca::simt::testing {

enum class Defective : std::uint8_t {
  kMissingBarrierBeforeRead,
  kMissingBarrierBeforeOverwrite,
  kMissingSyncwarp,
  kShuffleTakenForAFence,
  kAsyncCopyReadBeforeItsWait,
  kAsyncCopyReadWithoutBarrier,
  kAsyncCopyRefillWithoutBarrier,
  kBlocksShareACell,
  kThreadsShareASum,
  kDivergentBarrier,
  kExitBeforeBarrier,
  kHalfWarpWithAFullMask,
  kMaskWithoutTheCaller,
  kAsyncCopyNeverWaitedFor,
  kMisalignedLdmatrix,
};

/// Threads of the one block most of these run in; they read and write kNumbers floats.
inline constexpr int kDefectThreads = 128;
inline constexpr int kNumbers = 2 * kDefectThreads;

/// Runs the kernel of that defect, or with `right` the one without it. Both are meant to compute the same.
void run_defect(Defective defect, bool right, const float* in, float* out);

/// Writes one element past a shared array of `length` elements, which AddressSanitizer must stop.
void run_shared_overflow(int length, float* out);

/// out[i] for each thread i of 32: what __shfl_down_sync gives over lanes 0–15, and what it leaves to lanes
/// whose source takes no part.
void run_shuffle_from_outside(float* out);

/// Each lane's results of the warp intrinsics, 8 numbers a lane, from in[lane].
void run_warp_intrinsics(const float* in, float* out);

/// out[i] = the value shared memory holds at first, for static and for dynamic memory (kDefectThreads each).
void run_fresh_shared_memory(float* out);

}  // namespace voca::simt::testing
