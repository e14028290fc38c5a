#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cuda/simt.h"

// Race detector. Kernels are compiled with -fsanitize=thread, so every load and store calls a __tsan_
// function; race_hooks.cpp supplies these functions instead of libtsan. Every two bytes of shared memory and
// of memory from host::allocate have a shadow cell with their last write and last read. Accesses of different
// threads conflict unless a barrier (of the block or of the warp) lies between them.
//
// Without VOCA_SIMT_RACE, all functions are empty.

namespace voca::simt::host {

/// Site of an access: the caller of a compiler hook, or the call of an intrinsic.
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

  /// Sets the running thread; −1 between threads, when accesses are ignored.
  void set_thread(int thread) { thread_ = thread; }
  void access(const void* address, std::size_t bytes, AccessKind kind, const AccessSite& where);
  /// Records that a cp.async to shared memory was issued, or was waited for.
  void copy_begins(const void* address, std::size_t bytes, const AccessSite& where);
  void copy_ends(const void* address, std::size_t bytes, const AccessSite& where);

  void watch(const void* memory, std::size_t bytes);
  void unwatch(const void* memory);

  /// Races of the launch, one line per site; empty if none.
  [[nodiscard]] std::string report() const;

 private:
  /// Thread and barrier epochs of the last access to a cell. Epochs are never reset, so an epoch also
  /// identifies the block and the launch.
  struct Stamp {
    std::uint32_t epoch = 0;
    std::uint16_t warp_epoch = 0;
    std::int16_t thread = -1;
  };
  struct Cell {
    Stamp write;
    Stamp read;
    std::int16_t copying = -1;  ///< thread whose cp.async to this cell is in flight
    bool read_by_warp = false;  ///< other threads of the warp of `read` also read it since the last barriers
    bool read_by_others = false;  ///< threads of other warps also read it since then
  };
  /// Bytes per cell; kernels have no smaller element.
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
  std::uint32_t block_start_ = 0;   ///< epoch at the start of the block
  std::uint32_t launch_start_ = 0;  ///< epoch at the start of the launch
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

/// Whether the calling OS thread is running a grid.
[[nodiscard]] bool runs_a_grid();

/// Race detector of the executor.
[[nodiscard]] RaceDetector& race_detector();

}  // namespace voca::simt::host
