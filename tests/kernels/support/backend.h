#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels/backend.h"
#include "kernels/cpu/levels.h"

#if defined(VOCA_TEST_CUDA_ON_HOST)
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "tests/simt/executor.h"
#elif defined(VOCA_TEST_CUDA)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#endif

// Test cases of every operation: backend × element type. The backend of a case is the operation's tag with
// the memory of the test: gelu_forward(typename TypeParam::Backend{}, args).
//
// Each test program has one backend: kernels_tests the CPU, cuda_on_host_tests the CUDA kernels run on the
// CPU (docs/simt.md), cuda_tests the CUDA kernels on a GPU.

namespace voca::kernels::testing {

struct HostCpu : Cpu {
  static constexpr const char* kName = "cpu";
  /// Alignment of test arrays, in bytes, and no stricter one; 0 means the alignment of the element.
  static constexpr std::size_t kArrayAlignment = 0;
  /// Whether cpu::set_threads affects the backend.
  static constexpr bool kThreaded = true;

  /// Reason why the backend cannot run here; null if it can.
  static const char* unavailable() {
    // The tests run for each instruction set, and this processor need not have them all.
    static const std::string reason = [] {
      try {
        static_cast<void>(cpu::level());
        return std::string();
      } catch (const std::runtime_error& error) {
        return std::string(error.what());
      }
    }();
    return reason.empty() ? nullptr : reason.c_str();
  }
  static void* allocate(std::size_t bytes) { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); }
  static void free(void* memory) { std::free(memory); }
  static void copy_in(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
  static void copy_out(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
};

/// Base of the backends that run CUDA kernels.
struct AnyCuda : Cuda {
  /// Alignment of the arena, which the fast paths of the kernels need.
  static constexpr std::size_t kArrayAlignment = 16;
  static constexpr bool kThreaded = false;
};

template <typename BackendType, typename ElementType>
struct Case {
  using Backend = BackendType;
  using Element = ElementType;
};

#if defined(VOCA_TEST_CUDA_ON_HOST)

struct CudaOnHost : AnyCuda {
  static constexpr const char* kName = "cuda-on-host";
  static const char* unavailable() { return nullptr; }
  static void* allocate(std::size_t bytes) { return simt::host::allocate(bytes); }
  static void free(void* memory) { simt::host::free(memory); }
  static void copy_in(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
  static void copy_out(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
};
using TestedBackend = CudaOnHost;

#elif defined(VOCA_TEST_CUDA)

struct CudaDevice : AnyCuda {
  static constexpr const char* kName = "cuda";
  static const char* unavailable() {
    static const int devices = [] {
      int count = 0;
      return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
    }();
    return devices > 0 ? nullptr : "no CUDA device";
  }
  static void* allocate(std::size_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes));
    return memory;
  }
  static void free(void* memory) { check(cudaFree(memory)); }
  static void copy_in(void* to, const void* from, std::size_t bytes) {
    check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
  }
  static void copy_out(void* to, const void* from, std::size_t bytes) {
    check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
  }

 private:
  static void check(cudaError_t status) { EXPECT_EQ(status, cudaSuccess) << cudaGetErrorString(status); }
};
using TestedBackend = CudaDevice;

#else

using TestedBackend = HostCpu;

#endif

// A list of types after its first, which lets a list begin with a comma.
template <typename First, typename... Rest>
using AfterFirst = ::testing::Types<Rest...>;
#define VOCA_CASE(T) , Case<TestedBackend, T>

/// Test cases: the backend × its element types.
#if defined(VOCA_TEST_CUDA_ON_HOST) || defined(VOCA_TEST_CUDA)
using Cases = AfterFirst<void VOCA_CUDA_TYPES(VOCA_CASE)>;
/// Test cases of operations on the tensor cores.
using TensorCoreCases = AfterFirst<void VOCA_TENSOR_CORE_TYPES(VOCA_CASE)>;
#else
using Cases = AfterFirst<void VOCA_CPU_TYPES(VOCA_CASE)>;
using TensorCoreCases = Cases;
#endif
#undef VOCA_CASE
/// Test cases for gradient checks by finite differences.
using DoubleCases = ::testing::Types<Case<HostCpu, double>>;

}  // namespace voca::kernels::testing
