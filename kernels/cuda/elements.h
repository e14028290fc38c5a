#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cuda/simt.h"

// Elements in memory, floats in registers: conversions, and octets of eight neighbours, the piece of work of
// one thread (16 bytes of a 16-bit type; one Philox call decides for eight).

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

/// Rounded to nearest even.
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
/// x as memory of type T holds it.
template <typename T>
SIMT_DEVICE float rounded_to(float x) {
  return to_float(from_float<T>(x));
}

/// Two floats rounded to a pair, `low` in the low half.
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

inline constexpr int kOctet = 8;

/// Whether arrays of T that start at a multiple of 16 bytes may be read an octet at a time: host code decides
/// once a launch whether all its arrays do. Null pointers do.
template <typename... Pointers>
[[nodiscard]] bool on_16_bytes(const Pointers*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) % 16 == 0) && ...);
}

/// An octet as it lies in memory. Fetching several before the first is unpacked keeps all of them on their
/// way at once.
template <typename T>
struct Octet {
  std::uint32_t word[kOctet * sizeof(T) / 4];
};

SIMT_DEVICE void unpack_octet(const Octet<float>& octet, float (&out)[kOctet]) {
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) out[i] = __uint_as_float(octet.word[i]);
}
template <typename T>
SIMT_DEVICE void unpack_octet(const Octet<T>& octet, float (&out)[kOctet]) {
  SIMT_UNROLL
  for (int i = 0; i < kOctet / 2; ++i) unpack(octet.word[i], out[2 * i], out[2 * i + 1], T{});
}

SIMT_DEVICE Octet<float> pack_octet(const float (&in)[kOctet], float /*element type*/) {
  Octet<float> octet;
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) octet.word[i] = __float_as_uint(in[i]);
  return octet;
}
template <typename T>
SIMT_DEVICE Octet<T> pack_octet(const float (&in)[kOctet], T /*element type*/) {
  Octet<T> octet;
  SIMT_UNROLL
  for (int i = 0; i < kOctet / 2; ++i) octet.word[i] = pack(in[2 * i], in[2 * i + 1], T{});
  return octet;
}

/// The whole octet at p, a multiple of 16 bytes.
template <typename T>
SIMT_DEVICE Octet<T> fetch_aligned(const T* p) {
  Octet<T> octet;
  SIMT_UNROLL
  for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) {
    const uint4 bits = simt::load_16(p + i * (16 / sizeof(T)));
    octet.word[4 * i] = bits.x;
    octet.word[4 * i + 1] = bits.y;
    octet.word[4 * i + 2] = bits.z;
    octet.word[4 * i + 3] = bits.w;
  }
  return octet;
}
template <typename T>
SIMT_DEVICE void put_aligned(T* p, const Octet<T>& octet) {
  SIMT_UNROLL
  for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) {
    simt::store_16(p + i * (16 / sizeof(T)), make_uint4(octet.word[4 * i], octet.word[4 * i + 1],
                                                        octet.word[4 * i + 2], octet.word[4 * i + 3]));
  }
}

/// The octet at p, of which `count` elements are there (the others read as 0). kWhole: all eight are, and p
/// is a multiple of 16 bytes.
template <bool kWhole, typename T>
SIMT_DEVICE Octet<T> fetch_octet(const T* p, std::int64_t count) {
  if constexpr (kWhole) {
    return fetch_aligned(p);
  } else {
    float values[kOctet];
    SIMT_UNROLL
    for (int i = 0; i < kOctet; ++i) values[i] = i < count ? to_float(p[i]) : 0.0F;
    return pack_octet(values, T{});
  }
}
template <bool kWhole, typename T>
SIMT_DEVICE void load_octet(const T* p, std::int64_t count, float (&out)[kOctet]) {
  unpack_octet(fetch_octet<kWhole>(p, count), out);
}
template <bool kWhole, typename T>
SIMT_DEVICE void store_octet(T* p, std::int64_t count, const float (&in)[kOctet]) {
  if constexpr (kWhole) {
    put_aligned(p, pack_octet(in, T{}));
  } else {
    SIMT_UNROLL
    for (int i = 0; i < kOctet; ++i) {
      if (i < count) p[i] = from_float<T>(in[i]);
    }
  }
}

/// The same where only the launch knows. `wide`: p is a multiple of 16 bytes wherever the octet is whole.
template <typename T>
SIMT_DEVICE void load_octet(const T* p, std::int64_t count, bool wide, float (&out)[kOctet]) {
  if (wide && count >= kOctet) return load_octet<true>(p, count, out);
  load_octet<false>(p, count, out);
}
template <typename T>
SIMT_DEVICE void store_octet(T* p, std::int64_t count, bool wide, const float (&in)[kOctet]) {
  if (wide && count >= kOctet) return store_octet<true>(p, count, in);
  store_octet<false>(p, count, in);
}

/// Calls f.template operator()<whole>().
template <typename F>
void by_octets(bool whole, F f) {
  if (whole) return f.template operator()<true>();
  f.template operator()<false>();
}

/// Blocks of `threads` for `work` pieces, one a thread.
[[nodiscard]] inline dim3 blocks_for(std::int64_t work, int threads) {
  return dim3(static_cast<unsigned>((work + threads - 1) / threads));
}
/// The piece of work of this thread.
SIMT_DEVICE std::int64_t global_thread() {
  return block_index() * static_cast<std::int64_t>(blockDim.x) + thread_index();
}

}  // namespace voca::kernels::cuda
