#include "engine/core/arena.h"

#include <algorithm>
#include <cstring>

#include "kernels/types.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace voca::engine {
namespace {

// Fills unwritten memory with NaN in every float type; under AddressSanitizer, freed memory cannot be read at
// all.
void poison_unwritten([[maybe_unused]] std::byte* data, [[maybe_unused]] std::size_t bytes) {
  if (bytes == 0) return;  // an empty arena has no memory
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(data, bytes);
#endif
#if defined(__SANITIZE_ADDRESS__) || !defined(NDEBUG)
  std::memset(data, 0xFF, bytes);
#endif
}

void poison_freed([[maybe_unused]] std::byte* data, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(data, bytes);
#elif !defined(NDEBUG)
  std::memset(data, 0xFF, bytes);
#endif
}

}  // namespace

Tensor Arena::allocate(const char* name, const Shape& shape, DType dtype) {
  Tensor tensor{.data = nullptr, .shape = shape, .dtype = dtype, .device = device_, .name = name};
  const std::size_t bytes = kernels::align_up(tensor.bytes());
  if (device_ == DeviceKind::kMeta) {
    live_.push_back({name, used_, bytes});
  } else {
    if (used_ + bytes > capacity_) {
      throw InternalError("arena: {} needs {} bytes, {} of {} are left: the dry run took another path", name,
                          bytes, capacity_ - used_, capacity_);
    }
    tensor.data = base_ + used_;
    if (device_ == DeviceKind::kCpu) poison_unwritten(base_ + used_, bytes);
  }
  used_ += bytes;
  if (used_ > high_water_) {
    high_water_ = used_;
    if (device_ == DeviceKind::kMeta) peak_ = live_;
  }
  return tensor;
}

void Arena::release(std::size_t mark) {
  VOCA_CHECK(mark <= used_);
  if (device_ == DeviceKind::kMeta) {
    while (!live_.empty() && live_.back().offset >= mark) live_.pop_back();
  } else if (device_ == DeviceKind::kCpu) {
    poison_freed(base_ + mark, used_ - mark);
  }
  used_ = mark;
}

std::vector<MemoryLine> Arena::peak_lines() const {
  std::vector<MemoryLine> lines;
  for (const Live& live : peak_) {
    const auto same = std::find_if(lines.begin(), lines.end(),
                                   [&](const MemoryLine& line) { return line.name == live.name; });
    if (same == lines.end()) {
      lines.push_back({live.name, live.bytes});
    } else {
      same->bytes += live.bytes;
    }
  }
  return lines;
}

}  // namespace voca::engine
