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

SIMT_DEVICE void load_aligned(const float* p, float (&out)[kOctet]) {
  const uint4 first = simt::load_16(p);
  const uint4 second = simt::load_16(p + 4);
  const std::uint32_t bits[kOctet] = {first.x,  first.y,  first.z,  first.w,
                                      second.x, second.y, second.z, second.w};
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) out[i] = __uint_as_float(bits[i]);
}
template <typename T>
SIMT_DEVICE void load_aligned(const T* p, float (&out)[kOctet]) {
  const uint4 bits = simt::load_16(p);
  unpack(bits.x, out[0], out[1], T{});
  unpack(bits.y, out[2], out[3], T{});
  unpack(bits.z, out[4], out[5], T{});
  unpack(bits.w, out[6], out[7], T{});
}

SIMT_DEVICE void store_aligned(float* p, const float (&in)[kOctet]) {
  simt::store_16(p, make_uint4(__float_as_uint(in[0]), __float_as_uint(in[1]), __float_as_uint(in[2]),
                               __float_as_uint(in[3])));
  simt::store_16(p + 4, make_uint4(__float_as_uint(in[4]), __float_as_uint(in[5]), __float_as_uint(in[6]),
                                   __float_as_uint(in[7])));
}
template <typename T>
SIMT_DEVICE void store_aligned(T* p, const float (&in)[kOctet]) {
  simt::store_16(p, make_uint4(pack(in[0], in[1], T{}), pack(in[2], in[3], T{}), pack(in[4], in[5], T{}),
                               pack(in[6], in[7], T{})));
}

/// The octet at p, of which `count` elements are there (the others read as 0). `wide`: p is a multiple of 16
/// bytes wherever the octet is whole.
template <typename T>
SIMT_DEVICE void load_octet(const T* p, std::int64_t count, bool wide, float (&out)[kOctet]) {
  if (wide && count >= kOctet) return load_aligned(p, out);
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) out[i] = i < count ? to_float(p[i]) : 0.0F;
}
template <typename T>
SIMT_DEVICE void store_octet(T* p, std::int64_t count, bool wide, const float (&in)[kOctet]) {
  if (wide && count >= kOctet) return store_aligned(p, in);
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) {
    if (i < count) p[i] = from_float<T>(in[i]);
  }
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
