#include "tests/simt/fragments.h"

#include "kernels/cuda/elements.h"
#include "kernels/cuda/tensor_core.h"

namespace voca::simt::testing {

namespace {

template <typename T>
__global__ void mma(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d) {
  const int lane = lane_index();
  std::uint32_t a_registers[4];
  float sum[4];
  for (int i = 0; i < 4; ++i) {
    a_registers[i] = a[4 * lane + i];
    sum[i] = c[4 * lane + i];
  }
  mma_m16n8k16(sum, a_registers, b[2 * lane], b[2 * lane + 1], T{});
  for (int i = 0; i < 4; ++i) d[4 * lane + i] = sum[i];
}

template <bool kTransposed>
__global__ void ldmatrix(const std::uint16_t* rows, std::uint32_t* registers) {
  SIMT_SHARED(std::uint16_t, tile, [kWarp * 8]);
  const int lane = lane_index();
  for (int i = 0; i < 8; ++i) tile[8 * lane + i] = rows[8 * lane + i];
  __syncwarp();
  std::uint32_t r[4];
  if (kTransposed) {
    ldmatrix_x4_transposed(r, tile + 8 * lane);
  } else {
    ldmatrix_x4(r, tile + 8 * lane);
  }
  for (int i = 0; i < 4; ++i) registers[4 * lane + i] = r[i];
}

__global__ void movmatrix(const std::uint32_t* in, std::uint32_t* out) {
  out[lane_index()] = transposed_8x8(in[lane_index()]);
}

template <typename T>
__global__ void pack_pairs(const float* values, std::uint32_t* pairs) {
  pairs[lane_index()] = kernels::cuda::pack(values[2 * lane_index()], values[2 * lane_index() + 1], T{});
}

__global__ void cp_async(const std::uint32_t* in, std::uint32_t* out) {
  SIMT_SHARED(std::uint32_t, tile, [kWarp * 4]);
  const int lane = lane_index();
  cp_async_16(tile + 4 * lane, in + 4 * lane, lane % 2 == 0);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 4; ++i) out[4 * lane + i] = tile[4 * lane + i];
}

const LaunchShape kOneWarp{dim3(1), dim3(kWarp), 0, nullptr};

}  // namespace

template <typename T>
void run_mma(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d) {
  launch("mma", mma<T>, kOneWarp, a, b, c, d);
}

void run_ldmatrix(bool transposed, const std::uint16_t* rows, std::uint32_t* registers) {
  launch("ldmatrix", transposed ? ldmatrix<true> : ldmatrix<false>, kOneWarp, rows, registers);
}

void run_movmatrix(const std::uint32_t* in, std::uint32_t* out) {
  launch("movmatrix", movmatrix, kOneWarp, in, out);
}

template <typename T>
void run_pack(const float* values, std::uint32_t* pairs) {
  launch("pack_pairs", pack_pairs<T>, kOneWarp, values, pairs);
}

void run_cp_async(const std::uint32_t* in, std::uint32_t* out) {
  launch("cp_async", cp_async, kOneWarp, in, out);
}

template void run_mma<__nv_bfloat16>(const std::uint32_t*, const std::uint32_t*, const float*, float*);
template void run_mma<__half>(const std::uint32_t*, const std::uint32_t*, const float*, float*);
template void run_pack<__nv_bfloat16>(const float*, std::uint32_t*);
template void run_pack<__half>(const float*, std::uint32_t*);

}  // namespace voca::simt::testing
