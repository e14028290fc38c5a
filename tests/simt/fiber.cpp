#include "tests/simt/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "fibers are written for x86-64"
#endif

// Pushes the callee-saved registers, stores the stack pointer at *rdi, loads the one in rsi and pops the
// registers. A new fiber gets its argument from the popped rbx and its entry point from the return address.
asm(R"(
.text
.p2align 4
.type voca_simt_switch, @function
voca_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  movq %rbx, %rdi
  ret
.size voca_simt_switch, .-voca_simt_switch
)");
extern "C" void voca_simt_switch(void** save, void* load);

namespace voca::simt::host {

namespace {

void start_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* bottom,
                  [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
#endif
}

void finish_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** bottom,
                   [[maybe_unused]] std::size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, bottom, bytes);
#endif
}

}  // namespace

void Fiber::start(std::byte* stack, std::size_t bytes, Entry entry, void* argument) {
  entry_ = entry;
  argument_ = argument;
  stack_ = stack;
  bytes_ = bytes;
  fake_stack_ = nullptr;
  // voca_simt_switch pops r15, r14, r13, r12, rbx (the argument), rbp and the return address. Above them is a
  // null return address for main, at which the stack pointer is 8 below a multiple of 16.
  auto* top = reinterpret_cast<void**>(stack + bytes - 72);
  top[0] = nullptr;
  top[-1] = reinterpret_cast<void*>(&Fiber::main);
  top[-2] = nullptr;
  top[-3] = this;
  for (int i = 4; i <= 7; ++i) top[-i] = nullptr;
  stack_pointer_ = top - 7;
}

void Fiber::resume() {
  start_switch(&caller_fake_stack_, stack_, bytes_);
  voca_simt_switch(&caller_stack_pointer_, stack_pointer_);
  finish_switch(caller_fake_stack_, nullptr, nullptr);
}

void Fiber::leave(bool for_good) {
  start_switch(for_good ? nullptr : &fake_stack_, caller_stack_, caller_bytes_);
  voca_simt_switch(&stack_pointer_, caller_stack_pointer_);
  finish_switch(fake_stack_, &caller_stack_, &caller_bytes_);
}

// Never returns, so AddressSanitizer does not unpoison its frame; the work is therefore in the frame of
// entry.
void Fiber::main(Fiber* fiber) {
  finish_switch(nullptr, &fiber->caller_stack_, &fiber->caller_bytes_);
  fiber->entry_(fiber->argument_);
  fiber->leave(true);
  std::abort();
}

FiberStacks::~FiberStacks() {
  if (memory_ != nullptr) munmap(memory_, count_ * kStride);
}

void FiberStacks::reserve(std::size_t count) {
  if (count <= count_) return;
  if (memory_ != nullptr) munmap(memory_, count_ * kStride);
  memory_ = nullptr;
  void* memory = mmap(nullptr, count * kStride, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
  count_ = count;
  for (std::size_t i = 0; i < count; ++i) mprotect(memory_ + i * kStride, kGuard, PROT_NONE);
}

}  // namespace voca::simt::host
