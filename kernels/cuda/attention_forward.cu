#include <cmath>

#include "kernels/cuda/attention.h"

namespace voca::kernels {

using namespace cuda;

namespace {

constexpr int kTileBlocks = kStageRows / 8;
constexpr int kStages = 3;
/// Minimum resident blocks per SM, which limits the registers.
template <int kHead>
constexpr int kBlocks = kHead <= 64   ? 4
                        : kHead <= 96 ? 3
                                      : 2;

/// Online softmax state of the two rows of a lane.
struct Running {
  float most[2] = {-INFINITY, -INFINITY};  ///< maximum of the unscaled scores
  float sum[2] = {0, 0};                   ///< partial sum of this lane
};

// Replaces scores with probabilities relative to the running maximum; `correction` is the factor for earlier
// probabilities.
SIMT_DEVICE void softmax_tile(float (&s)[kTileBlocks][4], Running& running, float scale_log2, int keys_left,
                              float (&correction)[2]) {
  if (keys_left < kStageRows) {
    SIMT_UNROLL
    for (int n = 0; n < kTileBlocks; ++n) {
      SIMT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int key = n * 8 + lane_index() % 4 * 2 + i % 2;
        s[n][i] = key < keys_left ? s[n][i] : -INFINITY;
      }
    }
  }
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    float most = running.most[half];
    SIMT_UNROLL
    for (int n = 0; n < kTileBlocks; ++n) most = fmaxf(most, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, 1));
    most = fmaxf(most, __shfl_xor_sync(kFullWarp, most, 2));
    correction[half] = simt::exp2_approx((running.most[half] - most) * scale_log2);
    running.most[half] = most;
    running.sum[half] *= correction[half];
    const float most_log2 = most * scale_log2;
    SIMT_UNROLL
    for (int n = 0; n < kTileBlocks; ++n) {
      SIMT_UNROLL
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        s[n][i] = simt::exp2_approx(s[n][i] * scale_log2 - most_log2);
        running.sum[half] += s[n][i];
      }
    }
  }
}

// Replaces P with D(P) without its scale.
SIMT_DEVICE void drop_tile(float (&p)[kTileBlocks][4], const TileMask& mask, int row, int first_key) {
  SIMT_UNROLL
  for (int tile = 0; tile < kStageRows / 16; ++tile) {
    const Vec8Decisions decisions = mask.decisions(row / 16, first_key / 16 + tile);
    SIMT_UNROLL
    for (int e = 0; e < kVec8; ++e) {
      float& probability = p[2 * tile + block_of(e)][slot_of(e)];
      probability = decisions.keeps[e] ? probability : 0.0F;
    }
  }
}

// A block takes 64 query rows of one (batch, head), 16 per warp, and loops over the keys.
template <typename T, int kHead>
__global__ void __launch_bounds__(kAttentionThreads, kBlocks<kHead>)
    attention_forward_kernel(AttentionForward<T> args, Mask mask, float scale) {
  // The last stage holds the queries until they are in registers.
  SIMT_DYNAMIC_SHARED(T, shared);
  const AttentionShape& shape = args.shape;
  const BlockTile block(shape.query_length);
  const int row = block.first_row + warp_index() * 16;
  const auto q_rows = head_rows(args.q, shape, block.matrix, shape.query_length, shape.query_stride);
  const auto k_rows = head_rows(args.k, shape, block.matrix, shape.key_length, shape.key_stride);
  const auto v_rows = head_rows(args.v, shape, block.matrix, shape.key_length, shape.value_stride);
  const auto out_rows = head_rows(args.out, shape, block.matrix, shape.query_length, shape.heads * kHead);
  const TileMask tiles = tile_mask(mask, shape, block.matrix);
  // Beyond the last key, the commit group is empty.
  const auto fetch = [&](int stage, int key) {
    T* tile = shared + stage * kStage<kHead>;
    if (key < k_rows.length) {
      load_tile<kStageRows, kHead>(tile, k_rows, key);
      load_tile<kStageRows, kHead>(tile + kStage<kHead> / 2, v_rows, key);
    }
    simt::cp_async_commit();
  };

  T* q_tile = shared + (kStages - 1) * kStage<kHead>;
  load_tile<kTileRows, kHead>(q_tile, q_rows, block.first_row);
  SIMT_UNROLL
  for (int stage = 0; stage < kStages - 1; ++stage) fetch(stage, stage * kStageRows);
  simt::cp_async_wait<kStages - 2>();
  __syncthreads();
  const OwnRows<kHead, true, T> q(q_tile + warp_index() * 16 * kPitch<kHead>);

  Running running;
  float out[kHead / 8][4] = {};
  int stage = 0;
  for (int key = 0; key < k_rows.length; key += kStageRows) {
    simt::cp_async_wait<kStages - 2>();
    __syncthreads();
    fetch(stage == 0 ? kStages - 1 : stage - 1, key + (kStages - 1) * kStageRows);
    const T* k_tile = shared + stage * kStage<kHead>;
    float s[kTileBlocks][4];
    row_products<kStageRows>(s, q, k_tile);
    float correction[2];
    softmax_tile(s, running, scale * kLog2E, k_rows.length - key, correction);
    if (mask.dropout.enabled()) drop_tile(s, tiles, row, key);
    SIMT_UNROLL
    for (int n = 0; n < kHead / 8; ++n) {
      SIMT_UNROLL
      for (int i = 0; i < 4; ++i) out[n][i] *= correction[i / 2];
    }
    accumulate<kStageRows, kHead>(out, s, k_tile + kStage<kHead> / 2);
    stage = stage + 1 < kStages ? stage + 1 : 0;
  }

  float factor[2];
  SIMT_UNROLL
  for (int half = 0; half < 2; ++half) {
    running.sum[half] += __shfl_xor_sync(kFullWarp, running.sum[half], 1);
    running.sum[half] += __shfl_xor_sync(kFullWarp, running.sum[half], 2);
    factor[half] = mask.scale / running.sum[half];
    const int i = row + lane_index() / 4 + 8 * half;
    if (args.logsumexp != nullptr && lane_index() % 4 == 0 && i < q_rows.length) {
      args.logsumexp[block.matrix * q_rows.length + i] = running.most[half] * scale + logf(running.sum[half]);
    }
  }
  store_rows<kHead>(out_rows, row, factor, out);
}

}  // namespace

bool attention_is_fused(Cuda, const AttentionShape& shape) {
  const bool size =
      shape.head_size == 32 || shape.head_size == 64 || shape.head_size == 96 || shape.head_size == 128;
  const auto fits = [](std::int64_t stride) { return stride % 8 == 0 && stride <= std::int64_t{1} << 30; };
  // The index of a mask tile has 32 bits.
  constexpr std::int64_t kMaxRows = std::int64_t{1} << 20;
  return size && shape.query_length <= kMaxRows && shape.key_length <= kMaxRows && fits(shape.query_stride) &&
         fits(shape.key_stride) && fits(shape.value_stride);
}

void cuda::check_attention(const AttentionShape& shape, const Mask& mask, bool aligned) {
  if (attention_is_fused(Cuda{}, shape) && mask.whole() && aligned) return;
  throw Error("fused attention: head size " + std::to_string(shape.head_size) +
              " is not 32, 64, 96 or 128, lengths " + std::to_string(shape.query_length) + " and " +
              std::to_string(shape.key_length) +
              " are above 2^20, rows do not start at multiples of 16 bytes or are 2^30 elements apart, or "
              "the mask does not start at a multiple of 8");
}

template <typename T>
void attention_forward(Cuda backend, const AttentionForward<T>& args) {
  const AttentionShape& shape = args.shape;
  if (shape.batch * shape.heads * shape.query_length == 0) return;
  const Mask mask(args.dropout);
  check_attention(shape, mask, on_16_bytes(args.q, args.k, args.v, args.out));
  by_head_size(shape.head_size, [&]<int kHead>() {
    simt::launch("attention_forward", attention_forward_kernel<T, kHead>,
                 {tile_blocks(shape, shape.query_length), dim3(kAttentionThreads),
                  kStages * kStage<kHead> * sizeof(T), backend.stream},
                 args, mask, softmax_scale(shape));
  });
}

#define VOCA_INSTANTIATE(T) template void attention_forward(Cuda, const AttentionForward<T>&);
VOCA_TENSOR_CORE_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
