#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>

// CUDA extensions to C++ that kernels use, for the host compiler. Included by kernels/cuda/simt.h.

namespace voca::simt::host {

/// Call site in a kernel.
struct Site {
  const char* file;
  int line;
  [[nodiscard]] static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

/// Built-in variables of the running thread.
struct Builtins {
  uint3 thread_index;
  uint3 block_index;
  dim3 block_size;
  dim3 grid_size;
};
extern Builtins builtins;

void barrier(const char* what, Site site);

/// Warp operation over the arguments of the lanes in `mask`.
using WarpFunction = void (*)(void* const (&lanes)[kWarp], unsigned mask);
/// Waits for all lanes of `mask`; the last one calls f with the arguments of all lanes.
void warp_collective(unsigned mask, WarpFunction f, void* argument, const char* what, Site site);
void warp_barrier(unsigned mask, Site site);
[[nodiscard]] int lane();

[[nodiscard]] void* static_shared(const void* key, const char* name, std::size_t bytes);
[[nodiscard]] void* dynamic_shared();

void cp_async_16(void* shared, const void* global, bool valid, Site site);
void cp_async_commit();
void cp_async_wait(int pending);

void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1, Site site);
void mma_half(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1, Site site);
void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, bool transposed, Site site);
[[nodiscard]] std::uint32_t transposed_8x8(std::uint32_t pair, Site site);

/// Throws Defect unless the address is a multiple of `bytes`.
void expect_aligned(const void* pointer, std::size_t bytes, Site site);

/// Runs a grid whose threads call `thread`: immediately if the launch has no stream, else in the order of its
/// Stream.
void launch(const char* name, const LaunchShape& shape, std::function<void()> thread);

/// Argument of one lane of a shuffle.
template <typename T>
struct ShuffleArgument {
  T value;
  T result;
  int source;
};

template <typename T>
void shuffle_lanes(void* const (&lanes)[kWarp], unsigned mask) {
  const auto argument = [&](int i) { return static_cast<ShuffleArgument<T>*>(lanes[i]); };
  for (int i = 0; i < kWarp; ++i) {
    if ((mask >> static_cast<unsigned>(i) & 1U) == 0) continue;
    ShuffleArgument<T>* mine = argument(i);
    if ((mask >> static_cast<unsigned>(mine->source) & 1U) != 0) {
      mine->result = argument(mine->source)->value;
    } else {
      // The source lane does not participate: the result is NaN, or −1 for integers.
      std::memset(static_cast<void*>(&mine->result), 0xFF, sizeof(T));
    }
  }
}

template <typename T>
T shuffle(unsigned mask, T value, int source, const char* what, Site site) {
  static_assert(std::is_arithmetic_v<T> || std::is_same_v<T, __half> || std::is_same_v<T, __half2> ||
                    std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __nv_bfloat162>,
                "CUDA shuffles no such type");
  ShuffleArgument<T> argument{value, value, source};
  warp_collective(mask, shuffle_lanes<T>, &argument, what, site);
  return argument.result;
}

}  // namespace voca::simt::host

namespace voca::simt {

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
            Arguments&&... arguments) {
  host::launch(name, shape,
               [kernel, values = std::tuple<Parameters...>(static_cast<Parameters>(arguments)...)] {
                 std::apply(kernel, values);
               });
}

inline float exp2_approx(float x) {
  return std::exp2(x);
}
inline float reciprocal_approx(float x) {
  return 1.0F / x;
}

inline uint4 load_16(const void* pointer, host::Site site = host::Site::here()) {
  host::expect_aligned(pointer, 16, site);
  uint4 bits;
  std::memcpy(&bits, pointer, sizeof bits);
  return bits;
}
inline void store_16(void* pointer, uint4 bits, host::Site site = host::Site::here()) {
  host::expect_aligned(pointer, 16, site);
  std::memcpy(pointer, &bits, sizeof bits);
}
inline std::uint32_t load_4(const void* pointer, host::Site site = host::Site::here()) {
  host::expect_aligned(pointer, 4, site);
  std::uint32_t bits;
  std::memcpy(&bits, pointer, sizeof bits);
  return bits;
}
inline void store_4(void* pointer, std::uint32_t bits, host::Site site = host::Site::here()) {
  host::expect_aligned(pointer, 4, site);
  std::memcpy(pointer, &bits, sizeof bits);
}

}  // namespace voca::simt

// NOLINTBEGIN(bugprone-reserved-identifier, bugprone-macro-parentheses, readability-identifier-naming,
// misc-definitions-in-headers): CUDA's names, and types as macro arguments.

#define SIMT_DEVICE inline
#define SIMT_UNROLL
#define SIMT_ROLLED
// The address of a function-local static, unique per instance of a kernel template, is the key.
#define SIMT_SHARED(type, name, ...)                                           \
  typedef type name##SharedType __VA_ARGS__; /* NOLINT(modernize-use-using) */ \
  static char name##_shared_key;                                               \
  auto& name = *static_cast<name##SharedType*>(                                \
      ::voca::simt::host::static_shared(&name##_shared_key, #name, sizeof(name##SharedType)))
#define SIMT_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::voca::simt::host::dynamic_shared())

// The CUDA headers define __shared__ as empty for the host, so every thread would silently have its own copy.
#undef __shared__
#define __shared__ static_assert(false, "use SIMT_SHARED or SIMT_DYNAMIC_SHARED");
#undef __launch_bounds__
#define __launch_bounds__(...)
#define threadIdx (::voca::simt::host::builtins.thread_index)
#define blockIdx (::voca::simt::host::builtins.block_index)
#define blockDim (::voca::simt::host::builtins.block_size)
#define gridDim (::voca::simt::host::builtins.grid_size)

inline void __syncthreads(voca::simt::host::Site site = voca::simt::host::Site::here()) {
  voca::simt::host::barrier("__syncthreads", site);
}
inline void __syncwarp(unsigned mask = voca::simt::kFullWarp,
                       voca::simt::host::Site site = voca::simt::host::Site::here()) {
  voca::simt::host::warp_barrier(mask, site);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = voca::simt::kWarp,
              voca::simt::host::Site site = voca::simt::host::Site::here()) {
  const int first = voca::simt::host::lane() & ~(width - 1);
  return voca::simt::host::shuffle(mask, value, first | (source & (width - 1)), "__shfl_sync", site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = voca::simt::kWarp,
                  voca::simt::host::Site site = voca::simt::host::Site::here()) {
  const int lane = voca::simt::host::lane();
  const int source = lane ^ bits;
  const int end = (lane & ~(width - 1)) + width;
  return voca::simt::host::shuffle(mask, value, source < end ? source : lane, "__shfl_xor_sync", site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = voca::simt::kWarp,
                   voca::simt::host::Site site = voca::simt::host::Site::here()) {
  const int lane = voca::simt::host::lane();
  const int source = lane + static_cast<int>(distance);
  const int end = (lane & ~(width - 1)) + width;
  return voca::simt::host::shuffle(mask, value, source < end ? source : lane, "__shfl_down_sync", site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = voca::simt::kWarp,
                 voca::simt::host::Site site = voca::simt::host::Site::here()) {
  const int lane = voca::simt::host::lane();
  const int source = lane - static_cast<int>(distance);
  return voca::simt::host::shuffle(mask, value, source >= (lane & ~(width - 1)) ? source : lane,
                                   "__shfl_up_sync", site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              voca::simt::host::Site site = voca::simt::host::Site::here()) {
  struct Vote {
    bool yes;
    unsigned result;
  } vote{predicate != 0, 0};
  voca::simt::host::warp_collective(
      mask,
      [](void* const(&lanes)[voca::simt::kWarp], unsigned present) {
        unsigned result = 0;
        for (unsigned i = 0; i < voca::simt::kWarp; ++i) {
          if ((present >> i & 1U) != 0 && static_cast<Vote*>(lanes[i])->yes) result |= 1U << i;
        }
        for (unsigned i = 0; i < voca::simt::kWarp; ++i) {
          if ((present >> i & 1U) != 0) static_cast<Vote*>(lanes[i])->result = result;
        }
      },
      &vote, "__ballot_sync", site);
  return vote.result;
}
inline int __any_sync(unsigned mask, int predicate,
                      voca::simt::host::Site site = voca::simt::host::Site::here()) {
  return __ballot_sync(mask, predicate, site) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      voca::simt::host::Site site = voca::simt::host::Site::here()) {
  return __ballot_sync(mask, predicate == 0 ? 1 : 0, site) == 0 ? 1 : 0;
}

inline float __expf(float x) {
  return std::exp(x);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}

// NOLINTEND(bugprone-reserved-identifier, bugprone-macro-parentheses, readability-identifier-naming,
// misc-definitions-in-headers)
