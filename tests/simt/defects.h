#pragma once

#include <cstdint>

// Kernels that each have one defect, and their correct versions (defects.cu). The executor must report the
// defective ones and must not report the others.

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

/// Threads of the single block that most of these kernels use; they read and write kNumbers floats.
inline constexpr int kDefectThreads = 128;
inline constexpr int kNumbers = 2 * kDefectThreads;

/// Runs the kernel with this defect, or its correct version if `right`. Both should compute the same values.
void run_defect(Defective defect, bool right, const float* in, float* out);

/// Writes elements [0, length] of a shared array of kDefectThreads elements. AddressSanitizer must report the
/// overflow if `length` is kDefectThreads.
void run_shared_overflow(int length, float* out);

/// out[i] for each of 32 threads: result of __shfl_down_sync over lanes 0–15, including lanes whose source
/// does not participate.
void run_shuffle_from_outside(float* out);

/// Results of the warp intrinsics on in[lane], 8 numbers per lane.
void run_warp_intrinsics(const float* in, float* out);

/// out[i] = initial value of shared memory, static then dynamic (kDefectThreads values each).
void run_fresh_shared_memory(float* out);

}  // namespace voca::simt::testing
