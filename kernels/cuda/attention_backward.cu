#include <cmath>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/reduce.h"

// Three kernels without atomics: delta; dQ, a block a tile of queries; dK and dV, a block a tile of keys. The
// probabilities are computed again in both.

namespace voca::kernels::cuda {

namespace {

/// Rows of the tile a block goes over: fewer where a head's accumulators leave few registers.
template <int kHead>
constexpr int kStep = kHead <= 64 ? 64 : 32;

/// Scratch: delta (batch, heads, query_length).
template <typename T>
SIMT_DEVICE float* delta_of(const AttentionBackward<T>& args) {
  return static_cast<float*>(args.scratch);
}

constexpr int kDeltaThreads = 256;

// delta_i = Σ dO_i O_i; a warp a row of a head.
template <typename T>
__global__ void __launch_bounds__(kDeltaThreads) attention_delta_kernel(AttentionBackward<T> args) {
  const AttentionShape& shape = args.shape;
  const std::int64_t row = block_index() * (kDeltaThreads / kWarp) + warp_index();
  if (row >= shape.batch * shape.heads * shape.query_length) return;
  const std::int64_t stride = shape.heads * shape.head_size;
  const std::int64_t offset = head_offset(shape, row / shape.query_length, shape.query_length, stride) +
                              row % shape.query_length * stride;
  float sum = 0;
  for (std::int64_t c = lane_index(); c < shape.head_size; c += kWarp)
    sum += to_float(args.dout[offset + c]) * to_float(args.out[offset + c]);
  sum = warp_sum(sum);
  if (lane_index() == 0) delta_of(args)[row] = sum;
}

// dS of one 16 × 16 tile, in s[0…1]; dp is dO Vᵀ. factors in the order of the mask.
SIMT_DEVICE float score_gradient(float s, float dp, float factor, float scale_log2, float logsumexp_log2,
                                 float delta) {
  const float p = exp2f(s * scale_log2 - logsumexp_log2);
  return p * (dp * factor - delta);
}

// A block takes 64 query rows of one (batch, head), 16 a warp, and goes over the keys.
template <typename T, int kHead>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_dq_kernel(AttentionBackward<T> args, Mask mask, float scale) {
  constexpr int kKeys = kStep<kHead>;
  SIMT_DYNAMIC_SHARED(T, shared);
  T* q_tile = shared;
  T* dout_tile = q_tile + kTileRows * kPitch<kHead>;
  T* k_tile = dout_tile + kTileRows * kPitch<kHead>;
  T* v_tile = k_tile + kKeys * kPitch<kHead>;
  const AttentionShape& shape = args.shape;
  const std::int64_t matrix = block_index();
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.y) * kTileRows;
  const std::int64_t row = first_row + warp_index() * 16;
  const std::int64_t out_stride = shape.heads * kHead;
  const std::int64_t q_offset = head_offset(shape, matrix, shape.query_length, shape.query_stride);
  const T* k = args.k + head_offset(shape, matrix, shape.key_length, shape.key_stride);
  const T* v = args.v + head_offset(shape, matrix, shape.key_length, shape.value_stride);
  const TileMask tiles = tile_mask(mask, shape, matrix);
  load_tile<kTileRows, kHead>(q_tile, args.q + q_offset, shape.query_stride, first_row, shape.query_length);
  load_tile<kTileRows, kHead>(dout_tile,
                              args.dout + head_offset(shape, matrix, shape.query_length, out_stride),
                              out_stride, first_row, shape.query_length);
  float logsumexp[2];
  float delta[2];
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const std::int64_t i = row + lane_index() / 4 + 8 * half;
    const bool there = i < shape.query_length;
    logsumexp[half] = there ? args.logsumexp[matrix * shape.query_length + i] * kLog2E : 0.0F;
    delta[half] = there ? delta_of(args)[matrix * shape.query_length + i] : 0.0F;
  }
  const T* q_rows = q_tile + warp_index() * 16 * kPitch<kHead>;
  const T* dout_rows = dout_tile + warp_index() * 16 * kPitch<kHead>;
  float dq[kHead / 8][4] = {};
  for (std::int64_t key = 0; key < shape.key_length; key += kKeys) {
    __syncthreads();
    load_tile<kKeys, kHead>(k_tile, k, shape.key_stride, key, shape.key_length);
    load_tile<kKeys, kHead>(v_tile, v, shape.value_stride, key, shape.key_length);
    simt::cp_async_commit();
    simt::cp_async_wait<0>();
    __syncthreads();
    float s[kKeys / 8][4];
    float dp[kKeys / 8][4];
    row_products<kKeys, kHead>(s, q_rows, k_tile);
    row_products<kKeys, kHead>(dp, dout_rows, v_tile);
    SIMT_UNROLL
    for (int tile = 0; tile < kKeys / 16; ++tile) {
      float factors[kOctet];
      octet_factors(mask, tiles.first(row / 16, key / 16 + tile), factors);
      SIMT_UNROLL
      for (int e = 0; e < kOctet; ++e) {
        const int n = 2 * tile + e / 2 % 2;
        const int i = e / 4 * 2 + e % 2;
        const std::int64_t j = key + n * 8 + lane_index() % 4 * 2 + e % 2;
        const float ds =
            score_gradient(s[n][i], dp[n][i], factors[e], scale * kLog2E, logsumexp[e / 4], delta[e / 4]);
        s[n][i] = j < shape.key_length ? ds : 0.0F;
      }
    }
    accumulate<kKeys, kHead>(dq, s, k_tile);
  }
  const float factor[2] = {scale, scale};
  store_rows<kHead>(args.dq + q_offset, shape.query_stride, row, shape.query_length, factor, dq);
}

// Turns a lane's decisions of a tile, which are those of queries {g, g + 8} and keys {2t, 2t + 1, 2t + 8,
// 2t + 9} (g = lane / 4, t = lane % 4), into those of keys {g, g + 8} and queries {2t, …}: what the lane
// holds of the transposed product. Bit e: key half e / 4, query half e / 2 % 2, odd query e % 2.
SIMT_DEVICE unsigned transposed_decisions(unsigned mine) {
  const int g = lane_index() / 4;
  const int t = lane_index() % 4;
  const unsigned even = __shfl_sync(kFullWarp, mine, 8 * t + g / 2);
  const unsigned odd = __shfl_sync(kFullWarp, mine, 8 * t + 4 + g / 2);
  unsigned bits = 0;
  SIMT_UNROLL
  for (int e = 0; e < kOctet; ++e) {
    const int slot = e / 2 % 2 * 4 + e / 4 * 2 + g % 2;
    bits |= ((e % 2 == 0 ? even : odd) >> slot & 1U) << e;
  }
  return bits;
}

// A block takes 64 keys of one (batch, head), 16 a warp, and goes over the queries. Scores are held
// transposed, so that P and dS are operands of the products as they lie in registers.
template <typename T, int kHead>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_dkdv_kernel(AttentionBackward<T> args, Mask mask, float scale) {
  constexpr int kQueries = kStep<kHead>;
  SIMT_DYNAMIC_SHARED(T, shared);
  SIMT_SHARED(float, logsumexp, [kQueries]);
  SIMT_SHARED(float, delta, [kQueries]);
  T* k_tile = shared;
  T* v_tile = k_tile + kTileRows * kPitch<kHead>;
  T* q_tile = v_tile + kTileRows * kPitch<kHead>;
  T* dout_tile = q_tile + kQueries * kPitch<kHead>;
  const AttentionShape& shape = args.shape;
  const std::int64_t matrix = block_index();
  const std::int64_t first_key = static_cast<std::int64_t>(blockIdx.y) * kTileRows;
  const std::int64_t key = first_key + warp_index() * 16;
  const std::int64_t out_stride = shape.heads * kHead;
  const std::int64_t k_offset = head_offset(shape, matrix, shape.key_length, shape.key_stride);
  const std::int64_t v_offset = head_offset(shape, matrix, shape.key_length, shape.value_stride);
  const T* q = args.q + head_offset(shape, matrix, shape.query_length, shape.query_stride);
  const T* dout = args.dout + head_offset(shape, matrix, shape.query_length, out_stride);
  const TileMask tiles = tile_mask(mask, shape, matrix);
  load_tile<kTileRows, kHead>(k_tile, args.k + k_offset, shape.key_stride, first_key, shape.key_length);
  load_tile<kTileRows, kHead>(v_tile, args.v + v_offset, shape.value_stride, first_key, shape.key_length);
  const T* k_rows = k_tile + warp_index() * 16 * kPitch<kHead>;
  const T* v_rows = v_tile + warp_index() * 16 * kPitch<kHead>;
  float dk[kHead / 8][4] = {};
  float dv[kHead / 8][4] = {};
  for (std::int64_t row = 0; row < shape.query_length; row += kQueries) {
    __syncthreads();
    load_tile<kQueries, kHead>(q_tile, q, shape.query_stride, row, shape.query_length);
    load_tile<kQueries, kHead>(dout_tile, dout, out_stride, row, shape.query_length);
    simt::cp_async_commit();
    if (thread_index() < kQueries) {
      const std::int64_t i = row + thread_index();
      const bool there = i < shape.query_length;
      // A query that is not there has probabilities 0.
      logsumexp[thread_index()] = there ? args.logsumexp[matrix * shape.query_length + i] * kLog2E : INFINITY;
      delta[thread_index()] = there ? delta_of(args)[matrix * shape.query_length + i] : 0.0F;
    }
    simt::cp_async_wait<0>();
    __syncthreads();
    float p[kQueries / 8][4];
    float ds[kQueries / 8][4];
    row_products<kQueries, kHead>(p, k_rows, q_tile);
    row_products<kQueries, kHead>(ds, v_rows, dout_tile);
    SIMT_UNROLL
    for (int tile = 0; tile < kQueries / 16; ++tile) {
      unsigned keeps = 0xFFU;
      if (mask.dropout.enabled())
        keeps = transposed_decisions(octet_decisions(mask, tiles.first(row / 16 + tile, key / 16)));
      SIMT_UNROLL
      for (int e = 0; e < kOctet; ++e) {
        const int n = 2 * tile + e / 2 % 2;
        const int i = e / 4 * 2 + e % 2;
        const int query = n * 8 + lane_index() % 4 * 2 + e % 2;
        const float probability = exp2f(p[n][i] * scale * kLog2E - logsumexp[query]);
        const float factor = (keeps >> e & 1U) != 0 ? mask.scale : 0.0F;
        ds[n][i] = probability * (ds[n][i] * factor - delta[query]);
        p[n][i] = probability * factor;
      }
    }
    accumulate<kQueries, kHead>(dv, p, dout_tile);
    accumulate<kQueries, kHead>(dk, ds, q_tile);
  }
  const float one[2] = {1.0F, 1.0F};
  const float factor[2] = {scale, scale};
  store_rows<kHead>(args.dv + v_offset, shape.value_stride, key, shape.key_length, one, dv);
  store_rows<kHead>(args.dk + k_offset, shape.key_stride, key, shape.key_length, factor, dk);
}

}  // namespace

std::size_t attention_backward_scratch_bytes(const AttentionShape& shape) {
  return static_cast<std::size_t>(shape.batch * shape.heads * shape.query_length) * sizeof(float);
}

template <typename T>
void attention_backward(const AttentionBackward<T>& args, void* stream) {
  const AttentionShape& shape = args.shape;
  const std::int64_t matrices = shape.batch * shape.heads;
  if (matrices == 0) return;
  check_attention(shape, on_16_bytes(args.dout, args.q, args.k, args.v, args.out, args.dq, args.dk, args.dv));
  const std::int64_t rows = matrices * shape.query_length;
  simt::launch("attention_delta", attention_delta_kernel<T>,
               {blocks_for(rows, kDeltaThreads / kWarp), dim3(kDeltaThreads), 0, stream}, args);
  const auto blocks = [matrices](std::int64_t length) {
    return dim3(static_cast<unsigned>(matrices), static_cast<unsigned>(divide_up(length, kTileRows)));
  };
  by_head_size(shape.head_size, [&]<int kHead>() {
    const std::size_t shared = 2 * (kTileRows + kStep<kHead>)*kPitch<kHead> * sizeof(T);
    simt::launch("attention_dq", attention_dq_kernel<T, kHead>,
                 {blocks(shape.query_length), dim3(kAttentionThreads), shared, stream}, args,
                 Mask(args.dropout), softmax_scale(shape));
    simt::launch("attention_dkdv", attention_dkdv_kernel<T, kHead>,
                 {blocks(shape.key_length), dim3(kAttentionThreads), shared, stream}, args,
                 Mask(args.dropout), softmax_scale(shape));
  });
}

template void attention_backward(const AttentionBackward<__nv_bfloat16>&, void*);
template void attention_backward(const AttentionBackward<__half>&, void*);

}  // namespace voca::kernels::cuda
