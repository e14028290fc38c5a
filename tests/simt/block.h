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

// The executor's inside: the block that runs. Its scheduler is block.cpp; what threads of a warp do together
// warp.cpp; cp.async async_copy.cpp; grids and device memory executor.cpp.

namespace voca::simt::host {

enum class State : std::uint8_t { kReady, kAtBarrier, kAtWarpOperation, kExited };

/// One cp.async.
struct Copy {
  std::byte* to = nullptr;
  const std::byte* from = nullptr;
  bool valid = true;
  bool landed = false;
  Site site{};
};

struct Thread {
  Fiber fiber;
  int number = 0;  ///< in the block, x fastest
  uint3 index{};
  State state = State::kReady;
  /// What it waits in, and where.
  const char* what = "";
  Site site{};
  /// Of the warp operation it waits in.
  unsigned mask = 0;
  WarpFunction function = nullptr;
  void* argument = nullptr;
  /// Copies since the last commit, and committed groups not waited for.
  std::vector<Copy> open_group;
  std::deque<std::vector<Copy>> groups;
};

/// Shared memory of the block, from its start: dynamic, then each static array between red zones.
class SharedMemory {
 public:
  SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory();

  /// Forgets the static arrays and fills everything with NaN.
  void reset(std::size_t dynamic_bytes);
  [[nodiscard]] std::byte* dynamic() const { return memory_ + kDynamicOffset; }
  /// The block's array of this key; null when there is no room left.
  std::byte* static_array(const void* key, std::size_t bytes);
  [[nodiscard]] bool contains(const void* address) const;
  [[nodiscard]] std::byte* memory() const { return memory_; }

  static constexpr std::size_t kBytes = std::size_t{256} * 1024;

 private:
  // 128-byte aligned and no better, as CUDA promises.
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
  /// Runs one block to its end; throws the first Defect of its threads.
  void run(const char* kernel, const LaunchShape& shape, uint3 index, void (*call)(void*), void* closure,
           std::uint64_t seed);

  // Called on fibers.
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
  std::vector<std::size_t> turn_;  // the order of threads
  std::vector<Warp> warps_;
  Thread* current_ = nullptr;
  std::size_t alive_ = 0;
  std::size_t at_barrier_ = 0;
  Site barrier_site_{};  ///< where they wait
  std::exception_ptr defect_;
  std::mt19937_64 random_;
  const char* kernel_ = "";
  void (*call_)(void*) = nullptr;
  void* closure_ = nullptr;
};

/// The block that runs, or ran last.
[[nodiscard]] Block& block();

/// "file.cu:12"
[[nodiscard]] std::string text(const Site& site);

}  // namespace voca::simt::host
