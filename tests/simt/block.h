#pragma once

#include <cstddef>
#include <deque>
#include <exception>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/simt.h"
#include "tests/simt/executor.h"
#include "tests/simt/fiber.h"

// Internals of the executor: the running block. block.cpp has the scheduler, warp.cpp the warp operations,
// async_copy.cpp cp.async, executor.cpp grids and device memory.

namespace voca::simt::host {

enum class State : std::uint8_t { kReady, kAtBarrier, kAtWarpOperation, kExited };

/// One cp.async operation.
struct Copy {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  bool valid = true;
  bool landed = false;
  Site site{};
};

struct Thread {
  Fiber fiber;
  int number = 0;  ///< index in the block, x fastest
  uint3 index{};
  State state = State::kReady;
  /// Operation in which the thread waits, and its call site.
  const char* what = "";
  Site site{};
  /// Arguments of the warp operation in which the thread waits.
  unsigned mask = 0;
  WarpFunction function = nullptr;
  void* argument = nullptr;
  /// Copies since the last commit, and committed groups not yet waited for.
  std::vector<Copy> open_group;
  std::deque<std::vector<Copy>> groups;
};

/// Shared memory of the block: dynamic memory first, then each static array between red zones.
class SharedMemory {
 public:
  SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory();

  /// Removes the static arrays and fills all memory with NaN.
  void reset(std::size_t dynamic_bytes);
  [[nodiscard]] std::byte* dynamic() const { return memory_ + kDynamicOffset; }
  /// Static array of the block with this key, allocated on first use; null if shared memory is exhausted.
  std::byte* static_array(const void* key, std::size_t bytes);
  [[nodiscard]] bool contains(const void* address) const;
  [[nodiscard]] std::byte* memory() const { return memory_; }

  static constexpr std::size_t kBytes = std::size_t{256} * 1024;

 private:
  // Aligned to exactly 128 bytes, the minimum that CUDA guarantees.
  static constexpr std::size_t kDynamicOffset = 128;
  static constexpr std::size_t kRedZone = 64;

  struct Array {
    const void* key;
    std::byte* memory;
  };
  std::byte* memory_ = nullptr;
  std::size_t used_ = kBytes;
  std::size_t array_bytes_ = 0;
  std::size_t dynamic_bytes_ = 0;
  std::vector<Array> arrays_;
};

class Block {
 public:
  /// Runs one block to completion; throws the first Defect of its threads.
  void run(const char* kernel, const LaunchShape& shape, uint3 index, void (*call)(void*), void* closure,
           std::uint64_t seed);

  // The following functions are called on fibers.
  [[nodiscard]] Thread& current() { return *current_; }
  void barrier(const char* what, Site site);
  void warp_collective(unsigned mask, WarpFunction f, void* argument, const char* what, Site site);
  [[noreturn]] void fail(const std::string& what) const;
  [[nodiscard]] bool toss_coin() { return (random_() & 1U) != 0; }

  [[nodiscard]] SharedMemory& shared() { return shared_; }

 private:
  static void enter(void* block);
  void run_thread();
  void start_threads();
  bool run_ready(std::size_t begin, std::size_t end, bool until_all_wait);
  void schedule_threads();
  void suspend();
  void release_barrier();
  void exit_thread(Thread& thread);
  [[nodiscard]] std::string place() const;
  [[nodiscard]] std::string who_waits_where() const;

  struct Warp {
    unsigned alive = 0;
    unsigned waiting = 0;
  };

  SharedMemory shared_;
  FiberStacks stacks_;
  std::vector<Thread> threads_;
  std::vector<std::size_t> turn_;  // indices of threads_ in execution order
  std::vector<Warp> warps_;
  Thread* current_ = nullptr;
  std::size_t alive_ = 0;
  std::size_t at_barrier_ = 0;
  Site barrier_site_{};  ///< barrier at which threads wait
  std::exception_ptr defect_;
  std::mt19937_64 random_;
  const char* kernel_ = "";
  void (*call_)(void*) = nullptr;
  void* closure_ = nullptr;
};

/// The running block, or the last one.
[[nodiscard]] Block& block();

/// Formats a site as "file.cu:12".
[[nodiscard]] std::string text(const Site& site);

}  // namespace voca::simt::host
