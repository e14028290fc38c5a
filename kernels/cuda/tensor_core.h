#pragma once

#include "kernels/cuda/simt.h"

// MMAs, their fragment loads and asynchronous copies: PTX on the device, emulated by the executor on the
// host. Layouts follow the PTX ISA ("Matrix Fragments for mma.m16n8k16", "ldmatrix"). With group = lane / 4
// and pair = 2 · (lane % 4), and each register holding two neighbours, the lower index in the low half:
//
//   A (16 × 16)   a[0] = A[group][pair…],     a[1] = A[group + 8][pair…],
//                 a[2] = A[group][pair + 8…], a[3] = A[group + 8][pair + 8…]
//   B (16 × 8)    b[0] = B[pair…][group], b[1] = B[pair + 8…][group]
//   C, D (16 × 8) c[0…1] = C[group][pair…], c[2…3] = C[group + 8][pair…]
//
// All 32 lanes must call each function together, except the cp_async functions, which are per thread.

namespace voca::simt {

#if defined(__CUDACC__)

SIMT_DEVICE std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// c += A · B with fp32 accumulation.
SIMT_DEVICE void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                              __nv_bfloat16 /*element type*/) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
SIMT_DEVICE void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                              __half /*element type*/) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Loads four 8 × 8 matrices of 16-bit elements: lane l passes the 16-byte row l % 8 of matrix l / 8 and
/// receives elements [l / 4][2 (l % 4)…] of matrix m in r[m].
SIMT_DEVICE void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
/// ldmatrix_x4 with each matrix transposed: r[m] holds elements [2 (l % 4)…][l / 4].
SIMT_DEVICE void ldmatrix_x4_transposed(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

/// Transposes an 8 × 8 matrix of 16-bit elements (movmatrix); lane l holds elements [l / 4][2 (l % 4)…].
SIMT_DEVICE std::uint32_t transposed_8x8(std::uint32_t pair) {
  std::uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;\n" : "=r"(out) : "r"(pair));
  return out;
}

/// Copies 16 bytes from global to shared memory asynchronously; if `valid` is false, writes 16 zero bytes and
/// does not read the source. Both addresses must be 16-byte aligned.
SIMT_DEVICE void cp_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
/// Commits the preceding copies of this thread as a group.
SIMT_DEVICE void cp_async_commit() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
/// Waits until at most kPending groups of this thread are in flight. Other threads see the data after the
/// next barrier.
template <int kPending>
SIMT_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

#else

inline void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                         __nv_bfloat16 /*element type*/, host::Site site = host::Site::here()) {
  host::mma_bf16(c, a, b0, b1, site);
}
inline void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                         __half /*element type*/, host::Site site = host::Site::here()) {
  host::mma_half(c, a, b0, b1, site);
}
inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, host::Site site = host::Site::here()) {
  host::ldmatrix_x4(r, row, false, site);
}
inline void ldmatrix_x4_transposed(std::uint32_t (&r)[4], const void* row,
                                   host::Site site = host::Site::here()) {
  host::ldmatrix_x4(r, row, true, site);
}
inline std::uint32_t transposed_8x8(std::uint32_t pair, host::Site site = host::Site::here()) {
  return host::transposed_8x8(pair, site);
}
inline void cp_async_16(void* shared, const void* global, bool valid, host::Site site = host::Site::here()) {
  host::cp_async_16(shared, global, valid, site);
}
inline void cp_async_commit() {
  host::cp_async_commit();
}
template <int kPending>
inline void cp_async_wait() {
  host::cp_async_wait(kPending);
}

#endif

}  // namespace voca::simt
