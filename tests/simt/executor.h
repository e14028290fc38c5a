#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

// Runs CUDA kernels on the CPU, for tests: blocks one after another, the threads of a block as fibers of one
// operating-system thread. What kernels call is in intrinsics.h; this is what tests call. docs/simt.md says
// what it finds and what it cannot.

namespace voca::simt::host {

/// A defect of the kernel that ran: divergent barrier, deadlock, race, misaligned access, … The message names
/// kernel, block, thread, file and line.
struct Defect : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// In which order threads and blocks run.
enum class Order : std::uint8_t {
  kForward,  ///< ascending, a warp until all its threads wait
  kReverse,  ///< descending, likewise
  kRandom,   ///< a shuffle of all threads of the block at every turn
};

/// When the data of cp.async arrives.
enum class Landing : std::uint8_t {
  kLate,    ///< at the wait; until then the destination holds NaN
  kEager,   ///< at once
  kRandom,  ///< by a coin for each copy
};

struct Schedule {
  Order order = Order::kForward;
  Landing landing = Landing::kLate;
  std::uint64_t seed = 1;
};

/// The schedule of coming launches. At first the one named by VOCA_SIMT_SCHEDULE: forward (with late copies,
/// the default), reverse (eager copies) or random (both random).
[[nodiscard]] const Schedule& schedule();
void set_schedule(const Schedule& schedule);
/// The three that together find what a schedule can.
[[nodiscard]] Schedule forward_schedule();
[[nodiscard]] Schedule reverse_schedule();
[[nodiscard]] Schedule random_schedule(std::uint64_t seed);

/// Memory kernels use as the device's: 256-byte aligned, full of NaN, watched by the race detector.
[[nodiscard]] void* allocate(std::size_t bytes);
void free(void* memory);

/// Whether this build has the race detector.
[[nodiscard]] bool detects_races();

/// Shared memory a block may have: that of the smallest device kernels are built for (sm_80).
inline constexpr std::size_t kSharedLimit = std::size_t{163} * 1024;

}  // namespace voca::simt::host
