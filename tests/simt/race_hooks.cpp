#include "tests/simt/race.h"

// Functions that g++ -fsanitize=thread calls at every load and store. Linked instead of libtsan.

namespace {

using voca::simt::host::AccessKind;
using voca::simt::host::race_detector;

void access(const void* address, std::size_t bytes, AccessKind kind, const void* pc) {
  if (!voca::simt::host::runs_a_grid()) return;  // host code between kernels, or on another rank's thread
  race_detector().access(address, bytes, kind, {pc, {nullptr, 0}});
}

}  // namespace

// NOLINTBEGIN(bugprone-reserved-identifier): the compiler's names.

#define VOCA_ACCESS_HOOK(name, bytes, kind)                                \
  extern "C" void __tsan_##name(void* address) {                           \
    access(address, bytes, AccessKind::kind, __builtin_return_address(0)); \
  }
#define VOCA_ACCESS_HOOKS(bytes)                          \
  VOCA_ACCESS_HOOK(read##bytes, bytes, kRead)             \
  VOCA_ACCESS_HOOK(write##bytes, bytes, kWrite)           \
  VOCA_ACCESS_HOOK(unaligned_read##bytes, bytes, kRead)   \
  VOCA_ACCESS_HOOK(unaligned_write##bytes, bytes, kWrite) \
  VOCA_ACCESS_HOOK(volatile_read##bytes, bytes, kRead)    \
  VOCA_ACCESS_HOOK(volatile_write##bytes, bytes, kWrite)

VOCA_ACCESS_HOOKS(1)
VOCA_ACCESS_HOOKS(2)
VOCA_ACCESS_HOOKS(4)
VOCA_ACCESS_HOOKS(8)
VOCA_ACCESS_HOOKS(16)

extern "C" {

void __tsan_read_range(void* address, std::size_t bytes) {
  access(address, bytes, AccessKind::kRead, __builtin_return_address(0));
}
void __tsan_write_range(void* address, std::size_t bytes) {
  access(address, bytes, AccessKind::kWrite, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_vptr_update(void** /*object*/, void* /*table*/) {}
void __tsan_vptr_read(void** /*object*/) {}

}  // extern "C"

// NOLINTEND(bugprone-reserved-identifier)
