#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda/error.h"

// CUDA constructs used by the .cu files, which are compiled twice: by nvcc for the device, and by the host
// compiler for tests, which run them on the CPU (docs/simt.md).
//
//   SIMT_SHARED(float, sums, [kWarps][2]);        static shared memory
//   SIMT_DYNAMIC_SHARED(__half, tile);            dynamic shared memory of the launch, 128-byte aligned
//   SIMT_UNROLL, SIMT_ROLLED                      before a loop: unroll it fully, or not at all
//   SIMT_DEVICE                                   before a function that kernels call
//   simt::launch("name", kernel<T>, {grid, block, shared_bytes, stream}, args...)
//
// Other files use no <<<>>>, raw __shared__ or inline assembly: all PTX is here and in tensor_core.h.

namespace voca::simt {

struct LaunchShape {
  dim3 grid{};
  dim3 block{};
  std::size_t shared_bytes = 0;  ///< dynamic shared memory
  kernels::Stream stream = nullptr;
};

/// Threads per warp, and the mask of all of them.
inline constexpr int kWarp = 32;
inline constexpr unsigned kFullWarp = 0xFFFFFFFFU;

}  // namespace voca::simt

#if defined(__CUDACC__)

#define SIMT_DEVICE __device__ __forceinline__
#define SIMT_SHARED(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__
#define SIMT_DYNAMIC_SHARED(type, name)                                 \
  extern __shared__ __align__(128) unsigned char simt_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(simt_dynamic_shared)
#define SIMT_UNROLL _Pragma("unroll")
#define SIMT_ROLLED _Pragma("unroll 1")

namespace voca::simt {

inline void check_launch(const char* name, cudaError_t status, const LaunchShape& shape) {
  if (status == cudaSuccess) return;
  throw kernels::cuda::Error(std::string("kernel ") + name + ": " + cudaGetErrorString(status) + " (grid " +
                             std::to_string(shape.grid.x) + " x " + std::to_string(shape.grid.y) +
                             ", block " + std::to_string(shape.block.x) + ", " +
                             std::to_string(shape.shared_bytes) + " bytes of shared memory)");
}

/// Launches a kernel on the stream; opts in to more than 48 KiB of dynamic shared memory if needed. Throws
/// Error if the launch fails.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
            Arguments&&... arguments) {
  if (shape.shared_bytes > std::size_t{48} * 1024) {
    check_launch(name,
                 cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                      cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(shape.shared_bytes)),
                 shape);
  }
  kernel<<<shape.grid, shape.block, shape.shared_bytes, shape.stream>>>(
      static_cast<Parameters>(arguments)...);
  check_launch(name, cudaGetLastError(), shape);
}

/// 2ˣ to 2 ulp; results below 2⁻¹²⁶ are 0.
SIMT_DEVICE float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// 1/x to 1 ulp, unless x or 1/x is denormal.
SIMT_DEVICE float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// 16-byte aligned access to global memory in one instruction. The compiler might split a plain store of four
/// words to issue parts of it earlier.
SIMT_DEVICE uint4 load_16(const void* pointer) {
  return *static_cast<const uint4*>(pointer);
}
SIMT_DEVICE void store_16(void* pointer, uint4 bits) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(pointer)),
               "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w)
               : "memory");
}
/// 4-byte aligned access.
SIMT_DEVICE std::uint32_t load_4(const void* pointer) {
  return *static_cast<const std::uint32_t*>(pointer);
}
SIMT_DEVICE void store_4(void* pointer, std::uint32_t bits) {
  *static_cast<std::uint32_t*>(pointer) = bits;
}

}  // namespace voca::simt

#else

#include "tests/simt/intrinsics.h"

#endif

namespace voca::simt {

SIMT_DEVICE int thread_index() {
  return static_cast<int>(threadIdx.x);
}
SIMT_DEVICE int lane_index() {
  return static_cast<int>(threadIdx.x) % kWarp;
}
SIMT_DEVICE int warp_index() {
  return static_cast<int>(threadIdx.x) / kWarp;
}
SIMT_DEVICE std::int64_t block_index() {
  return static_cast<std::int64_t>(blockIdx.x);
}

}  // namespace voca::simt
