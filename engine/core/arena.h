#pragma once

#include <cstddef>
#include <vector>

#include "engine/core/device.h"
#include "engine/core/tensor.h"

namespace voca::engine {

/// A stack of tensors in one block of memory. A step allocates its activations in a fixed order and gives
/// them back by mark; laid out first without memory (kMeta), the same code measures what it needs, the block
/// is allocated once, and no step allocates anything.
class Arena {
 public:
  /// Without memory: allocate() hands out kMeta tensors and records the table at the high-water mark.
  /// `backend` is the device the step will run on: operations of another take other scratch.
  explicit Arena(DeviceKind backend = DeviceKind::kCpu) : backend_(backend) {}
  /// Over memory that outlives it.
  Arena(std::byte* base, std::size_t capacity, DeviceKind device)
      : base_(base), capacity_(capacity), device_(device), backend_(device) {}

  /// The next piece, aligned to 64 bytes, its content unspecified (poisoned in sanitizer and debug builds).
  /// `name` must outlive the arena. Throws InternalError with the name when the block is too small: the dry
  /// run did not do what the step does.
  [[nodiscard]] Tensor allocate(const char* name, const Shape& shape, DType dtype);
  /// As raw bytes, for an operation's scratch.
  [[nodiscard]] Tensor scratch(const char* name, std::size_t bytes) {
    return allocate(name, Shape{static_cast<std::int64_t>(bytes)}, DType::kU8);
  }

  [[nodiscard]] std::size_t used() const { return used_; }
  /// Gives back everything allocated since used() was `mark`.
  void release(std::size_t mark);
  [[nodiscard]] std::size_t high_water() const { return high_water_; }
  /// Where its tensors lie; kMeta in a dry run.
  [[nodiscard]] DeviceKind device() const { return device_; }
  /// The device a step over it runs on, in a dry run too.
  [[nodiscard]] DeviceKind backend() const { return backend_; }
  /// What was live when the dry run used the most, tensors of one name added up.
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

/// Gives back at the end of a scope what the scope allocated.
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
