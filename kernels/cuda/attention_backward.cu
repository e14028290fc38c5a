#include <cmath>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/reduce.h"

// Two kernels without atomics: the dQ kernel, one block per tile of queries, also writes delta; the dK and dV
// kernel has one block per tile of keys. Both recompute the probabilities. Dropout factors are 0 or its scale
// c, so both kernels work with dS / c = P ∘ (kept dP − delta / c) and P / c, and multiply the accumulated
// results by c.

namespace voca::kernels {

using namespace cuda;

namespace {

/// Minimum resident blocks per SM, which limits the registers.
template <int kHead>
constexpr int kDqBlocks = kHead <= 64   ? 4
                          : kHead <= 96 ? 3
                                        : 2;
template <int kHead>
constexpr int kDkDvBlocks = kHead <= 64 ? 3 : 2;

/// Whether a warp holds its 16 rows of two operands in registers instead of shared memory.
template <int kHead>
constexpr bool kHeld = kHead <= 96;
/// Elements of shared memory: a stage, followed by the two tiles of the block. If the tiles are held in
/// registers, the second stage overwrites the first of them.
template <int kHead>
constexpr int kShared = kHeld<kHead> ? 3 * kStage<kHead> : 4 * kStage<kHead>;
template <int kHead>
constexpr int kSecondStage = kHeld<kHead> ? kStage<kHead> : 3 * kStage<kHead>;

/// delta (batch, heads, query_length) in scratch.
template <typename T>
SIMT_DEVICE float* delta_of(const AttentionBackward<T>& args) {
  return static_cast<float*>(args.scratch);
}

/// Elements of O that match the elements of dO held by a lane: pairs of two rows.
template <int kHead>
struct OutPairs {
  template <typename T>
  SIMT_DEVICE OutPairs(const HeadRows<const T>& out, int row) {
    SIMT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int i = row + lane_index() / 4 + 8 * half;
      const T* pairs = out.head + static_cast<std::int64_t>(i) * out.stride + lane_index() % 4 * 2;
      SIMT_UNROLL
      for (int block = 0; block < kHead / 8; ++block)
        pair[half][block] = i < out.length ? simt::load_4(pairs + block * 8) : 0U;
    }
  }

  std::uint32_t pair[2][kHead / 8];
};

// delta_i = Σ dO_i O_i for the two rows of a lane.
template <typename T, int kHead>
SIMT_DEVICE void row_deltas(const OwnRows<kHead, kHeld<kHead>, T>& dout, const OutPairs<kHead>& out,
                            float (&delta)[2]) {
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    delta[half] = 0;
    SIMT_UNROLL
    for (int block = 0; block < kHead / 8; ++block) {
      std::uint32_t a[4];
      dout.get(a, block / 2);
      float dout_pair[2];
      float out_pair[2];
      unpack(a[block % 2 * 2 + half], dout_pair[0], dout_pair[1], T{});
      unpack(out.pair[half][block], out_pair[0], out_pair[1], T{});
      delta[half] += dout_pair[0] * out_pair[0] + dout_pair[1] * out_pair[1];
    }
    delta[half] += __shfl_xor_sync(kFullWarp, delta[half], 1);
    delta[half] += __shfl_xor_sync(kFullWarp, delta[half], 2);
  }
}

// A block takes 64 query rows of one (batch, head), 16 per warp, and loops over the keys.
template <typename T, int kHead>
__global__ void __launch_bounds__(kAttentionThreads, kDqBlocks<kHead>)
    attention_dq_kernel(AttentionBackward<T> args, Mask mask, float scale) {
  SIMT_DYNAMIC_SHARED(T, shared);
  const AttentionShape& shape = args.shape;
  const BlockTile block(shape.query_length);
  const int row = block.first_row + warp_index() * 16;
  const auto of_queries = [&](auto* array, std::int64_t stride) {
    return head_rows(array, shape, block.matrix, shape.query_length, stride);
  };
  const auto out_rows = of_queries(args.out, shape.heads * kHead);
  const auto k_rows = head_rows(args.k, shape, block.matrix, shape.key_length, shape.key_stride);
  const auto v_rows = head_rows(args.v, shape, block.matrix, shape.key_length, shape.value_stride);
  const TileMask tiles = tile_mask(mask, shape, block.matrix);
  const auto stage_at = [&](int stage) { return shared + stage * kSecondStage<kHead>; };
  const auto fetch = [&](int stage, int key) {
    T* tile = stage_at(stage);
    load_tile<kStageRows, kHead>(tile, k_rows, key);
    load_tile<kStageRows, kHead>(tile + kStage<kHead> / 2, v_rows, key);
    simt::cp_async_commit();
  };
  T* q_tile = shared + kStage<kHead>;
  T* dout_tile = q_tile + kTileRows * kPitch<kHead>;
  load_tile<kTileRows, kHead>(q_tile, of_queries(args.q, shape.query_stride), block.first_row);
  load_tile<kTileRows, kHead>(dout_tile, of_queries(args.dout, shape.heads * kHead), block.first_row);
  fetch(0, 0);
  const OutPairs<kHead> out(out_rows, row);
  float logsumexp[2];
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int i = row + lane_index() / 4 + 8 * half;
    logsumexp[half] = i < out_rows.length ? args.logsumexp[block.matrix * out_rows.length + i] : 0.0F;
  }
  simt::cp_async_wait<0>();
  __syncthreads();
  const OwnRows<kHead, kHeld<kHead>, T> q(q_tile + warp_index() * 16 * kPitch<kHead>);
  const OwnRows<kHead, kHeld<kHead>, T> dout(dout_tile + warp_index() * 16 * kPitch<kHead>);
  float delta[2];
  row_deltas<T, kHead>(dout, out, delta);
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int i = row + lane_index() / 4 + 8 * half;
    if (i < out_rows.length && lane_index() % 4 == 0)
      delta_of(args)[block.matrix * out_rows.length + i] = delta[half];
    logsumexp[half] *= kLog2E;
    delta[half] /= mask.scale;
  }
  float dq[kHead / 8][4] = {};
  int stage = 0;
  for (int key = 0; key < k_rows.length; key += kStageRows) {
    simt::cp_async_wait<0>();
    __syncthreads();
    if (key + kStageRows < k_rows.length) fetch(1 - stage, key + kStageRows);
    SIMT_ROLLED
    for (int half = 0; half < kStageRows / 16; ++half) {
      const T* k_tile = stage_at(stage) + half * 16 * kPitch<kHead>;
      float s[2][4];
      float dp[2][4];
      row_products<16>(s, q, k_tile);
      row_products<16>(dp, dout, k_tile + kStage<kHead> / 2);
      if (mask.dropout.enabled()) {
        const Vec8Decisions decisions = tiles.decisions(row / 16, key / 16 + half);
        SIMT_UNROLL
        for (int e = 0; e < kVec8; ++e) {
          float& gradient = dp[block_of(e)][slot_of(e)];
          gradient = decisions.keeps[e] ? gradient : 0.0F;
        }
      }
      SIMT_UNROLL
      for (int e = 0; e < kVec8; ++e) {
        float& ds = s[block_of(e)][slot_of(e)];
        ds = simt::exp2_approx(ds * (scale * kLog2E) - logsumexp[e / 4]) *
             (dp[block_of(e)][slot_of(e)] - delta[e / 4]);
      }
      const int left = k_rows.length - key - half * 16;
      if (left < 16) {
        SIMT_UNROLL
        for (int e = 0; e < kVec8; ++e) {
          float& ds = s[block_of(e)][slot_of(e)];
          ds = block_of(e) * 8 + lane_index() % 4 * 2 + e % 2 < left ? ds : 0.0F;
        }
      }
      accumulate<16, kHead>(dq, s, k_tile);
    }
    stage = 1 - stage;
  }
  const float factor[2] = {scale * mask.scale, scale * mask.scale};
  store_rows<kHead>(of_queries(args.dq, shape.query_stride), row, factor, dq);
}

// A block takes 64 keys of one (batch, head), 16 per warp, and loops over the queries, 16 at a time. Scores
// are transposed, so that the registers of P and dS are MMA operands without rearrangement.
template <typename T, int kHead>
__global__ void __launch_bounds__(kAttentionThreads, kDkDvBlocks<kHead>)
    attention_dkdv_kernel(AttentionBackward<T> args, Mask mask, float scale) {
  SIMT_DYNAMIC_SHARED(T, shared);
  SIMT_SHARED(float, logsumexp, [2][kStageRows]);
  SIMT_SHARED(float, delta, [2][kStageRows]);
  const AttentionShape& shape = args.shape;
  const BlockTile block(shape.key_length);
  const int key = block.first_row + warp_index() * 16;
  const auto of_keys = [&](auto* array, std::int64_t stride) {
    return head_rows(array, shape, block.matrix, shape.key_length, stride);
  };
  const auto q_rows = head_rows(args.q, shape, block.matrix, shape.query_length, shape.query_stride);
  const auto dout_rows = head_rows(args.dout, shape, block.matrix, shape.query_length, shape.heads * kHead);
  const TileMask tiles = tile_mask(mask, shape, block.matrix);
  const auto stage_at = [&](int stage) { return shared + stage * kSecondStage<kHead>; };
  // Raw values, not converted before the next stage, so that no instruction waits for the loads.
  float next_logsumexp = 0;
  float next_delta = 0;
  const auto fetch = [&](int stage, int row) {
    T* tile = stage_at(stage);
    load_tile<kStageRows, kHead>(tile, q_rows, row);
    load_tile<kStageRows, kHead>(tile + kStage<kHead> / 2, dout_rows, row);
    simt::cp_async_commit();
    const int i = row + thread_index();
    if (thread_index() < kStageRows && i < q_rows.length) {
      const std::int64_t place = block.matrix * q_rows.length + i;
      next_logsumexp = args.logsumexp[place];
      next_delta = delta_of(args)[place];
    }
  };
  T* k_tile = shared + kStage<kHead>;
  T* v_tile = k_tile + kTileRows * kPitch<kHead>;
  load_tile<kTileRows, kHead>(k_tile, of_keys(args.k, shape.key_stride), block.first_row);
  load_tile<kTileRows, kHead>(v_tile, of_keys(args.v, shape.value_stride), block.first_row);
  fetch(0, 0);
  simt::cp_async_wait<0>();
  __syncthreads();
  const OwnRows<kHead, kHeld<kHead>, T> k(k_tile + warp_index() * 16 * kPitch<kHead>);
  const OwnRows<kHead, kHeld<kHead>, T> v(v_tile + warp_index() * 16 * kPitch<kHead>);
  const float inverse_scale = 1.0F / mask.scale;
  float dk[kHead / 8][4] = {};
  float dv[kHead / 8][4] = {};
  int stage = 0;
  for (int row = 0; row < q_rows.length; row += kStageRows) {
    simt::cp_async_wait<0>();
    if (thread_index() < kStageRows) {
      // A query beyond the length has probability 0.
      const bool there = row + thread_index() < q_rows.length;
      logsumexp[stage][thread_index()] = there ? next_logsumexp * kLog2E : INFINITY;
      delta[stage][thread_index()] = there ? next_delta * inverse_scale : 0.0F;
    }
    __syncthreads();
    if (row + kStageRows < q_rows.length) fetch(1 - stage, row + kStageRows);
    SIMT_ROLLED
    for (int half = 0; half < kStageRows / 16; ++half) {
      const T* q_tile = stage_at(stage) + half * 16 * kPitch<kHead>;
      const T* dout_tile = q_tile + kStage<kHead> / 2;
      float p[2][4];
      float ds[2][4];
      row_products<16>(p, k, q_tile);
      row_products<16>(ds, v, dout_tile);
      // Computes dS and the probability of element e, then replaces the probability with its dropped value
      // for dV.
      const auto finish = [&](int e, bool keeps) {
        const int query = half * 16 + block_of(e) * 8 + lane_index() % 4 * 2 + e % 2;
        float& probability = p[block_of(e)][slot_of(e)];
        float& gradient = ds[block_of(e)][slot_of(e)];
        probability = simt::exp2_approx(probability * (scale * kLog2E) - logsumexp[stage][query]);
        gradient = probability * ((keeps ? gradient : 0.0F) - delta[stage][query]);
        probability = keeps ? probability : 0.0F;
      };
      if (mask.dropout.enabled()) {
        const Vec8Decisions decisions = tiles.transposed_decisions(row / 16 + half, key / 16);
        SIMT_UNROLL
        for (int e = 0; e < kVec8; ++e) finish(e, decisions.keeps[e]);
      } else {
        SIMT_UNROLL
        for (int e = 0; e < kVec8; ++e) finish(e, true);
      }
      accumulate<16, kHead>(dv, p, dout_tile);
      accumulate<16, kHead>(dk, ds, q_tile);
    }
    stage = 1 - stage;
  }
  const float dv_factor[2] = {mask.scale, mask.scale};
  const float dk_factor[2] = {scale * mask.scale, scale * mask.scale};
  store_rows<kHead>(of_keys(args.dv, shape.value_stride), key, dv_factor, dv);
  store_rows<kHead>(of_keys(args.dk, shape.key_stride), key, dk_factor, dk);
}

}  // namespace

template <typename T>
std::size_t scratch_bytes(Cuda, const AttentionBackward<T>& args) {
  return static_cast<std::size_t>(args.shape.batch * args.shape.heads * args.shape.query_length) *
         sizeof(float);
}

template <typename T>
void attention_backward(Cuda backend, const AttentionBackward<T>& args) {
  const AttentionShape& shape = args.shape;
  if (shape.batch * shape.heads == 0) return;
  const Mask mask(args.dropout);
  check_attention(shape, mask,
                  on_16_bytes(args.dout, args.q, args.k, args.v, args.out, args.dq, args.dk, args.dv));
  by_head_size(shape.head_size, [&]<int kHead>() {
    const std::size_t shared = kShared<kHead> * sizeof(T);
    if (shape.query_length > 0) {
      simt::launch("attention_dq", attention_dq_kernel<T, kHead>,
                   {tile_blocks(shape, shape.query_length), dim3(kAttentionThreads), shared, backend.stream},
                   args, mask, softmax_scale(shape));
    }
    simt::launch("attention_dkdv", attention_dkdv_kernel<T, kHead>,
                 {tile_blocks(shape, shape.key_length), dim3(kAttentionThreads), shared, backend.stream},
                 args, mask, softmax_scale(shape));
  });
}

#define VOCA_INSTANTIATE(T)                                            \
  template void attention_backward(Cuda, const AttentionBackward<T>&); \
  template std::size_t scratch_bytes(Cuda, const AttentionBackward<T>&);
VOCA_TENSOR_CORE_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
