#pragma once

#include <cstddef>

namespace voca::simt::host {

/// Function that runs on its own stack and can suspend. x86-64, System V calling convention: a switch saves
/// the callee-saved registers and takes a few nanoseconds (ucontext also saves the signal mask, with two
/// system calls).
class Fiber {
 public:
  using Entry = void (*)(void* argument);

  /// Prepares the fiber to run entry(argument) on the given stack.
  void start(std::byte* stack, std::size_t bytes, Entry entry, void* argument);
  /// Runs the fiber until it suspends or its entry function returns.
  void resume();
  /// Returns control to the caller of resume(); called on the fiber.
  void suspend() { leave(false); }

 private:
  [[noreturn]] static void main(Fiber* fiber);
  void leave(bool for_good);

  Entry entry_ = nullptr;
  void* argument_ = nullptr;
  std::byte* stack_ = nullptr;
  std::size_t bytes_ = 0;
  void* stack_pointer_ = nullptr;
  void* caller_stack_pointer_ = nullptr;
  // State of each stack for AddressSanitizer while the other one runs.
  void* fake_stack_ = nullptr;
  void* caller_fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  std::size_t caller_bytes_ = 0;
};

/// Fiber stacks, each with a guard page below; reused across launches.
class FiberStacks {
 public:
  static constexpr std::size_t kStackBytes = std::size_t{128} * 1024;

  FiberStacks() = default;
  FiberStacks(const FiberStacks&) = delete;
  FiberStacks& operator=(const FiberStacks&) = delete;
  ~FiberStacks();

  void reserve(std::size_t count);
  [[nodiscard]] std::byte* stack(std::size_t i) const { return memory_ + i * kStride + kGuard; }

 private:
  static constexpr std::size_t kGuard = 4096;
  static constexpr std::size_t kStride = kStackBytes + kGuard;

  std::byte* memory_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace voca::simt::host
