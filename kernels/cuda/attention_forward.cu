#include <cmath>

#include "kernels/cuda/attention.h"

namespace voca::kernels::cuda {

namespace {

constexpr int kKeys = 64;

/// The running softmax of the lane's two rows.
struct Running {
  float most[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  ///< the lane's part
};

// Scores become probabilities relative to the running maximum; returns what earlier ones must be multiplied
// by.
SIMT_DEVICE void softmax_tile(float (&s)[kKeys / 8][4], Running& running, float scale_log2,
                              std::int64_t keys_left, float (&correction)[2]) {
  float most[2] = {running.most[0], running.most[1]};
  SIMT_UNROLL
  for (int n = 0; n < kKeys / 8; ++n) {
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int key = n * 8 + lane_index() % 4 * 2 + i % 2;
      s[n][i] = key < keys_left ? s[n][i] * scale_log2 : -INFINITY;
      most[i / 2] = fmaxf(most[i / 2], s[n][i]);
    }
  }
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    most[half] = fmaxf(most[half], __shfl_xor_sync(kFullWarp, most[half], 1));
    most[half] = fmaxf(most[half], __shfl_xor_sync(kFullWarp, most[half], 2));
    correction[half] = exp2f(running.most[half] - most[half]);
    running.most[half] = most[half];
    running.sum[half] *= correction[half];
  }
  SIMT_UNROLL
  for (int n = 0; n < kKeys / 8; ++n) {
    SIMT_UNROLL
    for (int i = 0; i < 4; ++i) {
      s[n][i] = exp2f(s[n][i] - most[i / 2]);
      running.sum[i / 2] += s[n][i];
    }
  }
}

// P becomes D(P).
SIMT_DEVICE void drop_tile(float (&p)[kKeys / 8][4], const TileMask& mask, std::int64_t row,
                           std::int64_t first_key) {
  SIMT_UNROLL
  for (int tile = 0; tile < kKeys / 16; ++tile) {
    float factors[kOctet];
    octet_factors(mask.mask, mask.first(row / 16, first_key / 16 + tile), factors);
    SIMT_UNROLL
    for (int e = 0; e < kOctet; ++e) p[2 * tile + e / 2 % 2][e / 4 * 2 + e % 2] *= factors[e];
  }
}

// A block takes 64 query rows of one (batch, head), 16 a warp, and goes over the keys. While a tile of K is
// multiplied the values are on their way, and the other way round.
template <typename T, int kHead>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_forward_kernel(AttentionForward<T> args, Mask mask, float scale) {
  SIMT_DYNAMIC_SHARED(T, shared);
  T* q_tile = shared;
  T* k_tile = q_tile + kTileRows * kPitch<kHead>;
  T* v_tile = k_tile + kKeys * kPitch<kHead>;
  const AttentionShape& shape = args.shape;
  const std::int64_t matrix = block_index();
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.y) * kTileRows;
  const std::int64_t row = first_row + warp_index() * 16;
  const T* k = args.k + head_offset(shape, matrix, shape.key_length, shape.key_stride);
  const T* v = args.v + head_offset(shape, matrix, shape.key_length, shape.value_stride);
  const TileMask tiles = tile_mask(mask, shape, matrix);

  load_tile<kTileRows, kHead>(q_tile,
                              args.q + head_offset(shape, matrix, shape.query_length, shape.query_stride),
                              shape.query_stride, first_row, shape.query_length);
  load_tile<kKeys, kHead>(k_tile, k, shape.key_stride, 0, shape.key_length);
  simt::cp_async_commit();
  load_tile<kKeys, kHead>(v_tile, v, shape.value_stride, 0, shape.key_length);
  simt::cp_async_commit();
  simt::cp_async_wait<1>();
  __syncthreads();
  std::uint32_t q[kHead / 16][4];
  SIMT_UNROLL
  for (int i = 0; i < kHead / 16; ++i) load_a<kHead>(q[i], q_tile + warp_index() * 16 * kPitch<kHead>, i);

  Running running;
  float out[kHead / 8][4] = {};
  for (std::int64_t key = 0; key < shape.key_length; key += kKeys) {
    simt::cp_async_wait<1>();
    __syncthreads();
    float s[kKeys / 8][4] = {};
    SIMT_UNROLL
    for (int i = 0; i < kHead / 16; ++i) multiply_rows<kKeys, kHead>(s, q[i], k_tile, i);
    __syncthreads();
    if (key + kKeys < shape.key_length)
      load_tile<kKeys, kHead>(k_tile, k, shape.key_stride, key + kKeys, shape.key_length);
    simt::cp_async_commit();
    float correction[2];
    softmax_tile(s, running, scale * kLog2E, shape.key_length - key, correction);
    if (mask.dropout.enabled()) drop_tile(s, tiles, row, key);
    SIMT_UNROLL
    for (int n = 0; n < kHead / 8; ++n) {
      SIMT_UNROLL
      for (int i = 0; i < 4; ++i) out[n][i] *= correction[i / 2];
    }
    simt::cp_async_wait<1>();
    __syncthreads();
    accumulate<kKeys, kHead>(out, s, v_tile);
    __syncthreads();
    if (key + kKeys < shape.key_length)
      load_tile<kKeys, kHead>(v_tile, v, shape.value_stride, key + kKeys, shape.key_length);
    simt::cp_async_commit();
  }
  simt::cp_async_wait<0>();

  float inverse[2];
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    running.sum[half] += __shfl_xor_sync(kFullWarp, running.sum[half], 1);
    running.sum[half] += __shfl_xor_sync(kFullWarp, running.sum[half], 2);
    inverse[half] = 1.0F / running.sum[half];
    const std::int64_t i = row + lane_index() / 4 + 8 * half;
    if (args.logsumexp != nullptr && lane_index() % 4 == 0 && i < shape.query_length)
      args.logsumexp[matrix * shape.query_length + i] = running.most[half] / kLog2E + logf(running.sum[half]);
  }
  const std::int64_t out_stride = shape.heads * kHead;
  store_rows<kHead>(args.out + head_offset(shape, matrix, shape.query_length, out_stride), out_stride, row,
                    shape.query_length, inverse, out);
}

}  // namespace

bool attention_is_fused(const AttentionShape& shape) {
  const bool sizes =
      shape.head_size == 32 || shape.head_size == 64 || shape.head_size == 96 || shape.head_size == 128;
  return sizes && shape.query_stride % 8 == 0 && shape.key_stride % 8 == 0 && shape.value_stride % 8 == 0;
}

void check_attention(const AttentionShape& shape, bool aligned) {
  if (attention_is_fused(shape) && aligned) return;
  throw Error("fused attention: head size " + std::to_string(shape.head_size) +
              " is not 32, 64, 96 or 128, or rows do not start at multiples of 16 bytes");
}

template <typename T>
void attention_forward(const AttentionForward<T>& args, void* stream) {
  const AttentionShape& shape = args.shape;
  if (shape.batch * shape.heads * shape.query_length == 0) return;
  check_attention(shape, on_16_bytes(args.q, args.k, args.v, args.out));
  const dim3 grid(static_cast<unsigned>(shape.batch * shape.heads),
                  static_cast<unsigned>(divide_up(shape.query_length, kTileRows)));
  by_head_size(shape.head_size, [&]<int kHead>() {
    const std::size_t shared = (kTileRows + 2 * kKeys) * kPitch<kHead> * sizeof(T);
    simt::launch("attention_forward", attention_forward_kernel<T, kHead>,
                 {grid, dim3(kAttentionThreads), shared, stream}, args, Mask(args.dropout),
                 softmax_scale(shape));
  });
}

template void attention_forward(const AttentionForward<__nv_bfloat16>&, void*);
template void attention_forward(const AttentionForward<__half>&, void*);

}  // namespace voca::kernels::cuda
