#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "kernels/cpu/features.h"

// What every operation is tested on: a backend × an element type. A backend says where its memory is and how
// bytes get there; a test file says how the operation is called on it, by overloading on the backend:
//
//   template <typename T> void run(Cpu, const GeluForward<T>& args) { cpu::gelu_forward(args); }

namespace voca::kernels::testing {

struct Cpu {
  static constexpr const char* kName = "cpu";
  /// Arrays of tests start on no better boundary than this, in bytes (0: that of the element).
  static constexpr std::size_t kArrayAlignment = 0;
  /// Whether set_threads concerns it.
  static constexpr bool kThreaded = true;

  static void* allocate(std::size_t bytes) { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); }
  static void free(void* memory) { std::free(memory); }
  static void copy_in(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
  static void copy_out(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
};

template <typename BackendType, typename ElementType>
struct Case {
  using Backend = BackendType;
  using Element = ElementType;
};

/// Every backend present × its element types.
using Cases = ::testing::Types<Case<Cpu, float>, Case<Cpu, double>>;
/// Those on which derivatives are checked by finite differences.
using DoubleCases = ::testing::Types<Case<Cpu, double>>;

}  // namespace voca::kernels::testing
