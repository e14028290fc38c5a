#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cuda/simt.h"

// Conversions between elements in memory and floats in registers, and Vec8: eight neighbouring elements, the
// unit of work of one thread (16 bytes of a 16-bit type, one Philox call).

namespace voca::kernels::cuda {

using simt::block_index;
using simt::kFullWarp;
using simt::kWarp;
using simt::lane_index;
using simt::thread_index;
using simt::warp_index;

SIMT_DEVICE float to_float(float x) {
  return x;
}
SIMT_DEVICE float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
SIMT_DEVICE float to_float(__half x) {
  return __half2float(x);
}

/// Converts float to T, rounded to nearest even.
SIMT_DEVICE float from_float(float x, float /*element type*/) {
  return x;
}
SIMT_DEVICE __nv_bfloat16 from_float(float x, __nv_bfloat16 /*element type*/) {
  return __float2bfloat16_rn(x);
}
SIMT_DEVICE __half from_float(float x, __half /*element type*/) {
  return __float2half_rn(x);
}
template <typename T>
SIMT_DEVICE T from_float(float x) {
  return from_float(x, T{});
}
/// x rounded to T and back.
template <typename T>
SIMT_DEVICE float rounded_to(float x) {
  return to_float(from_float<T>(x));
}

/// Rounds two floats to a packed pair, with `low` in the low half.
SIMT_DEVICE std::uint32_t pack(float low, float high, __nv_bfloat16 /*element type*/) {
#if defined(__CUDA_ARCH__)
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
#else
  return static_cast<std::uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(low))) |
         static_cast<std::uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(high))) << 16U;
#endif
}
SIMT_DEVICE std::uint32_t pack(float low, float high, __half /*element type*/) {
#if defined(__CUDA_ARCH__)
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
#else
  return static_cast<std::uint32_t>(__half_as_ushort(__float2half_rn(low))) |
         static_cast<std::uint32_t>(__half_as_ushort(__float2half_rn(high))) << 16U;
#endif
}

SIMT_DEVICE void unpack(std::uint32_t pair, float& low, float& high, __nv_bfloat16 /*element type*/) {
  low = __uint_as_float(pair << 16U);
  high = __uint_as_float(pair & 0xFFFF0000U);
}
SIMT_DEVICE void unpack(std::uint32_t pair, float& low, float& high, __half /*element type*/) {
  low = __half2float(__ushort_as_half(static_cast<unsigned short>(pair & 0xFFFFU)));
  high = __half2float(__ushort_as_half(static_cast<unsigned short>(pair >> 16U)));
}

inline constexpr int kVec8 = 8;

/// Whether all arrays are 16-byte aligned, as Vec8 accesses require; null pointers count as aligned. Host
/// code checks this once per launch.
template <typename... Pointers>
[[nodiscard]] bool on_16_bytes(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

/// Eight elements as stored in memory. Fetching several before the first is unpacked keeps all of them in
/// flight.
template <typename T>
struct Vec8 {
  std::uint32_t word[kVec8 * sizeof(T) / 4];
};

SIMT_DEVICE void unpack_vec8(const Vec8<float>& vec8, float (&out)[kVec8]) {
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) out[i] = __uint_as_float(vec8.word[i]);
}
template <typename T>
SIMT_DEVICE void unpack_vec8(const Vec8<T>& vec8, float (&out)[kVec8]) {
  SIMT_UNROLL
  for (int i = 0; i < kVec8 / 2; ++i) unpack(vec8.word[i], out[2 * i], out[2 * i + 1], T{});
}

SIMT_DEVICE Vec8<float> pack_vec8(const float (&in)[kVec8], float /*element type*/) {
  Vec8<float> vec8;
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) vec8.word[i] = __float_as_uint(in[i]);
  return vec8;
}
template <typename T>
SIMT_DEVICE Vec8<T> pack_vec8(const float (&in)[kVec8], T /*element type*/) {
  Vec8<T> vec8;
  SIMT_UNROLL
  for (int i = 0; i < kVec8 / 2; ++i) vec8.word[i] = pack(in[2 * i], in[2 * i + 1], T{});
  return vec8;
}

/// Loads the Vec8 at p, which must be 16-byte aligned.
template <typename T>
SIMT_DEVICE Vec8<T> fetch_aligned(const T* p) {
  Vec8<T> vec8;
  SIMT_UNROLL
  for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) {
    const uint4 bits = simt::load_16(p + i * (16 / sizeof(T)));
    vec8.word[4 * i] = bits.x;
    vec8.word[4 * i + 1] = bits.y;
    vec8.word[4 * i + 2] = bits.z;
    vec8.word[4 * i + 3] = bits.w;
  }
  return vec8;
}
template <typename T>
SIMT_DEVICE void put_aligned(T* p, const Vec8<T>& vec8) {
  SIMT_UNROLL
  for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) {
    simt::store_16(p + i * (16 / sizeof(T)), make_uint4(vec8.word[4 * i], vec8.word[4 * i + 1],
                                                        vec8.word[4 * i + 2], vec8.word[4 * i + 3]));
  }
}

/// Loads the Vec8 at p, with zeros from element `count` on. kWhole requires `count` ≥ 8 and a 16-byte aligned
/// p.
template <bool kWhole, typename T>
SIMT_DEVICE Vec8<T> fetch_vec8(const T* p, std::int64_t count) {
  if constexpr (kWhole) {
    return fetch_aligned(p);
  } else {
    float values[kVec8];
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) values[i] = i < count ? to_float(p[i]) : 0.0F;
    return pack_vec8(values, T{});
  }
}
template <bool kWhole, typename T>
SIMT_DEVICE void load_vec8(const T* p, std::int64_t count, float (&out)[kVec8]) {
  unpack_vec8(fetch_vec8<kWhole>(p, count), out);
}
template <bool kWhole, typename T>
SIMT_DEVICE void store_vec8(T* p, std::int64_t count, const float (&in)[kVec8]) {
  if constexpr (kWhole) {
    put_aligned(p, pack_vec8(in, T{}));
  } else {
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) {
      if (i < count) p[i] = from_float<T>(in[i]);
    }
  }
}

/// Run-time forms of load_vec8 and store_vec8: `wide` says that p is 16-byte aligned if the Vec8 is whole.
template <typename T>
SIMT_DEVICE void load_vec8(const T* p, std::int64_t count, bool wide, float (&out)[kVec8]) {
  if (wide && count >= kVec8) return load_vec8<true>(p, count, out);
  load_vec8<false>(p, count, out);
}
template <typename T>
SIMT_DEVICE void store_vec8(T* p, std::int64_t count, bool wide, const float (&in)[kVec8]) {
  if (wide && count >= kVec8) return store_vec8<true>(p, count, in);
  store_vec8<false>(p, count, in);
}

/// Calls f.template operator()<kWhole>() with kWhole = `whole`.
template <typename F>
void by_vec8s(bool whole, F f) {
  if (whole) return f.template operator()<true>();
  f.template operator()<false>();
}

/// Grid of blocks of `threads` threads for `work` items, one per thread.
[[nodiscard]] inline dim3 blocks_for(std::int64_t work, int threads) {
  return dim3(static_cast<unsigned>((work + threads - 1) / threads));
}
/// Global index of this thread in a one-dimensional grid.
SIMT_DEVICE std::int64_t global_thread() {
  return block_index() * static_cast<std::int64_t>(blockDim.x) + thread_index();
}

}  // namespace voca::kernels::cuda
