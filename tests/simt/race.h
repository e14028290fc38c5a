#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/simt.h"

// The race detector. Kernels are compiled with -fsanitize=thread, so that every load and store calls a
// __tsan_ function; race.cpp supplies those instead of libtsan. Every two bytes of shared memory and of
// memory from host::allocate has a shadow cell with its last write and last read; an access conflicts with
// one of another thread unless a barrier (of the block, or of the warp) lies between.
//
// Without VOCA_SIMT_RACE everything here is empty.

namespace voca::simt::host {

/// An access's place: the caller of the compiler's hook, or the call of an intrinsic.
struct AccessSite {
  const void* pc = nullptr;
  Site site{nullptr, 0};
};

enum class AccessKind : std::uint8_t { kRead, kWrite };

#if defined(VOCA_SIMT_RACE)

class RaceDetector {
 public:
  RaceDetector(const std::byte* shared, std::size_t bytes);

  void new_launch();
  void new_block();
  void block_barrier() { ++epoch_; }
  void warp_barrier(int warp) { ++warp_epoch_[warp]; }

  /// The thread that runs; −1 between threads, when accesses are not looked at.
  void set_thread(int thread) { thread_ = thread; }
  void access(const void* address, std::size_t bytes, AccessKind kind, const AccessSite& where);
  /// cp.async is on its way to shared memory, or has been waited for.
  void copy_begins(const void* address, std::size_t bytes, const AccessSite& where);
  void copy_ends(const void* address, std::size_t bytes, const AccessSite& where);

  void watch(const void* memory, std::size_t bytes);
  void unwatch(const void* memory);

  /// What the launch did wrong, a line for each place; empty when nothing.
  [[nodiscard]] std::string report() const;

 private:
  /// Who accessed a place last, and when in terms of barriers. Epochs count on from block to block, so that
  /// an epoch also tells the block and the launch.
  struct Stamp {
    std::uint32_t epoch = 0;
    std::uint16_t warp_epoch = 0;
    std::int16_t thread = -1;
  };
  struct Cell {
    Stamp write;
    Stamp read;
    std::int16_t copying = -1;    ///< thread whose cp.async is on its way here
    bool read_by_warp = false;    ///< other threads of `read`'s warp read it since the same barriers
    bool read_by_others = false;  ///< likewise threads of other warps
  };
  /// Bytes a cell stands for: kernels have no smaller element.
  static constexpr std::size_t kCellBytes = 2;
  struct Region {
    const std::byte* first = nullptr;
    std::size_t bytes = 0;
    std::vector<Cell> cells;
  };

  [[nodiscard]] Stamp now() const;
  [[nodiscard]] bool conflicts(const Stamp& earlier, bool shared) const;
  [[nodiscard]] bool conflicts_with_readers(const Cell& cell, bool shared) const;
  Region* region_of(const void* address);
  void touch(Cell& cell, bool shared, std::size_t offset, AccessKind kind, const AccessSite& where);
  void record_read(Cell& cell) const;
  void set_copying(const void* address, std::size_t bytes, int thread);
  void found(const char* what, bool shared, std::size_t offset, const Stamp& other, const AccessSite& where);

  Region shared_;
  std::vector<Region> regions_;
  std::size_t last_region_ = 0;
  int thread_ = -1;
  std::uint32_t epoch_ = 0;
  std::uint32_t block_start_ = 0;   ///< epoch in which the block began
  std::uint32_t launch_start_ = 0;  ///< likewise the launch
  std::uint16_t warp_epoch_[kWarp] = {};
  struct Found {
    std::string what;
    AccessSite where;
  };
  std::vector<Found> found_;
};

#else

class RaceDetector {
 public:
  RaceDetector(const std::byte* /*shared*/, std::size_t /*bytes*/) {}
  void new_launch() {}
  void new_block() {}
  void block_barrier() {}
  void warp_barrier(int /*warp*/) {}
  void set_thread(int /*thread*/) {}
  void access(const void* /*address*/, std::size_t /*bytes*/, AccessKind /*kind*/,
              const AccessSite& /*where*/) {}
  void copy_begins(const void* /*address*/, std::size_t /*bytes*/, const AccessSite& /*where*/) {}
  void copy_ends(const void* /*address*/, std::size_t /*bytes*/, const AccessSite& /*where*/) {}
  void watch(const void* /*memory*/, std::size_t /*bytes*/) {}
  void unwatch(const void* /*memory*/) {}
  [[nodiscard]] std::string report() const { return {}; }
};

#endif

/// Whether this operating-system thread runs a grid.
[[nodiscard]] bool runs_a_grid();

/// The one of the executor.
[[nodiscard]] RaceDetector& race_detector();

}  // namespace voca::simt::host
