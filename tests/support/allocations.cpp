#include "tests/support/allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace voca::test {
namespace {

std::atomic<std::int64_t>& counter() {
  static constinit std::atomic<std::int64_t> count{0};
  return count;
}

}  // namespace

std::int64_t allocations() {
  return counter();
}

namespace {

void* counted(std::size_t size, std::size_t alignment) {
  ++counter();
  void* const memory = alignment == 0
                           ? std::malloc(size == 0 ? 1 : size)
                           : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace
}  // namespace voca::test

// The array forms come down to these, or to a sanitizer's, where they match each other. A sanitizer's nothrow
// forms would be freed by the delete below, so they are here.
void* operator new(std::size_t size) {
  return voca::test::counted(size, 0);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return voca::test::counted(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t& /*tag*/) noexcept {
  try {
    return voca::test::counted(size, 0);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t& /*tag*/) noexcept {
  try {
    return voca::test::counted(size, static_cast<std::size_t>(alignment));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
