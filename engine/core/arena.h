#pragma once

#include <cstddef>
#include <vector>

#include "engine/core/device.h"
#include "engine/core/tensor.h"

namespace voca::engine {

/// A stack of tensors in one block of memory. A step allocates its activations in a fixed order and releases
/// them by mark. A dry run of the same code on kMeta, without memory, measures its needs; the block is then
/// allocated once, and no step allocates anything.
class Arena {
 public:
  /// Without memory, for a dry run: allocate() returns kMeta tensors and records the allocations at the
  /// high-water mark. `backend` is the device on which the step will run: scratch sizes depend on it.
  explicit Arena(DeviceKind backend = DeviceKind::kCpu) : backend_(backend) {}
  /// Over the memory [base, base + capacity), which must outlive the arena.
  Arena(std::byte* base, std::size_t capacity, DeviceKind device)
      : base_(base), capacity_(capacity), device_(device), backend_(device) {}

  /// Allocates the next tensor, aligned to 64 bytes, with unspecified content (poisoned in sanitizer and
  /// debug builds). `name` must outlive the arena. Throws InternalError with the name if the block is too
  /// small: the dry run differed from the step.
  [[nodiscard]] Tensor allocate(const char* name, const Shape& shape, DType dtype);
  /// Allocates raw bytes, for an operation's scratch.
  [[nodiscard]] Tensor scratch(const char* name, std::size_t bytes) {
    return allocate(name, Shape{static_cast<std::int64_t>(bytes)}, DType::kU8);
  }

  [[nodiscard]] std::size_t used() const { return used_; }
  /// Releases everything allocated since used() was `mark`.
  void release(std::size_t mark);
  [[nodiscard]] std::size_t high_water() const { return high_water_; }
  /// Device of its tensors; kMeta in a dry run.
  [[nodiscard]] DeviceKind device() const { return device_; }
  /// Device on which the step runs, also in a dry run.
  [[nodiscard]] DeviceKind backend() const { return backend_; }
  /// Allocations at the dry run's peak, summed by name.
  [[nodiscard]] std::vector<MemoryLine> peak_lines() const;

 private:
  struct Live {
    const char* name;
    std::size_t offset;
    std::size_t bytes;
  };

  std::byte* base_ = nullptr;
  std::size_t capacity_ = 0;
  DeviceKind device_ = DeviceKind::kMeta;
  DeviceKind backend_ = DeviceKind::kCpu;
  std::size_t used_ = 0;
  std::size_t high_water_ = 0;
  std::vector<Live> live_;  // dry run only
  std::vector<Live> peak_;  // dry run only
};

/// Releases at scope exit what the scope allocated.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.used()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  std::size_t mark_;
};

}  // namespace voca::engine
