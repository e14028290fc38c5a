#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

// Runs CUDA kernels on the CPU for tests: blocks one at a time, the threads of a block as fibers of one OS
// thread. This header is the interface for tests; intrinsics.h is the interface for kernels. docs/simt.md
// says what the executor can and cannot detect.

namespace voca::simt::host {

/// Thrown if a kernel has a defect: divergent barrier, deadlock, race, misaligned access, … The message names
/// kernel, block, thread, file and line.
struct Defect : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Execution order of threads and blocks.
enum class Order : std::uint8_t {
  kForward,  ///< ascending; each warp runs until all its threads wait
  kReverse,  ///< descending; each warp runs until all its threads wait
  kRandom,   ///< threads of the block reshuffled at every turn
};

/// Time at which cp.async writes its destination.
enum class Landing : std::uint8_t {
  kLate,    ///< at the wait; the destination holds NaN until then
  kEager,   ///< immediately
  kRandom,  ///< chosen at random per copy
};

struct Schedule {
  Order order = Order::kForward;
  Landing landing = Landing::kLate;
  std::uint64_t seed = 1;
};

/// Schedule of subsequent launches. The initial one comes from VOCA_SIMT_SCHEDULE: forward (default, late
/// copies), reverse (eager copies) or random (random order and copies).
[[nodiscard]] const Schedule& schedule();
void set_schedule(const Schedule& schedule);
/// Three schedules that together expose all schedule-dependent defects the executor can detect.
[[nodiscard]] Schedule forward_schedule();
[[nodiscard]] Schedule reverse_schedule();
[[nodiscard]] Schedule random_schedule(std::uint64_t seed);

/// Allocates device memory for kernels: 256-byte aligned, filled with NaN, watched by the race detector.
[[nodiscard]] void* allocate(std::size_t bytes);
void free(void* memory);

/// Whether this build includes the race detector.
[[nodiscard]] bool detects_races();

/// Maximum shared memory per block, in bytes: the limit of the smallest target device (sm_80).
inline constexpr std::size_t kSharedLimit = std::size_t{163} * 1024;

}  // namespace voca::simt::host
