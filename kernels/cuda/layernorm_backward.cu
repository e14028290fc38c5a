#include "kernels/cuda/dropout.h"
#include "kernels/cuda/layernorm_shapes.h"
#include "kernels/cuda/partial_sums.h"
#include "kernels/cuda/reduce.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/layernorm.h"

namespace voca::kernels {

using namespace cuda;

namespace {

/// Maximum threads of a block that holds a row in registers, one Vec8 per thread.
constexpr int kBackwardThreads = 384;

/// Partition of a backward block into groups of threads; a group processes one row at a time, one Vec8 per
/// thread.
struct BackwardGroups {
  explicit BackwardGroups(std::int64_t columns) {
    const std::int64_t vec8s = divide_up(columns, kVec8);
    threads = static_cast<int>(divide_up(vec8s, kWarp) * kWarp);
    groups = threads < kBackwardThreads ? kBackwardThreads / threads : 1;
  }
  [[nodiscard]] bool fits() const { return threads <= kBackwardThreads; }

  int threads;
  int groups;
};

[[nodiscard]] RowChunks backward_chunks(std::int64_t rows, std::int64_t columns) {
  const BackwardGroups groups(columns);
  return {rows, groups.fits() ? 4 * groups.groups : 1, 256};
}

/// Statistics of a row, saved by forward.
struct Statistics {
  float mean;
  float rstd;
};
template <typename T>
SIMT_DEVICE Statistics fetch_statistics(const LayernormBackward<T>& args, std::int64_t row) {
  return {args.mean[row], args.rstd[row]};
}
template <typename T>
struct FetchedRow {
  Vec8<T> dy;
  Vec8<T> z;
};
template <bool kWhole, typename T>
SIMT_DEVICE FetchedRow<T> fetch_row(const LayernormBackward<T>& args, std::int64_t row, std::int64_t column) {
  const std::int64_t element = row * args.columns + column;
  const std::int64_t count = args.columns - column;
  return {fetch_vec8<kWhole>(args.dy + element, count), fetch_vec8<kWhole>(args.z + element, count)};
}

// g = D_out'(dy) · gamma and x̂ of eight elements. normalise() also adds to the sums of dgamma and dbeta.
struct Normalised {
  float g[kVec8];
  float xhat[kVec8];
};

template <bool kWhole, typename T>
SIMT_DEVICE void normalise(const LayernormBackward<T>& args, const FetchedRow<T>& fetched,
                           const Statistics& statistics, const Mask& mask, std::int64_t row,
                           std::int64_t column, Normalised& out, float (&dgamma)[kVec8],
                           float (&dbeta)[kVec8]) {
  float other[kVec8];
  unpack_vec8(fetched.dy, out.g);
  unpack_vec8(fetched.z, out.xhat);
  drop_vec8<kWhole>(mask, row * args.columns + column, out.g);
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) {
    out.xhat[i] = (out.xhat[i] - statistics.mean) * statistics.rstd;
    dgamma[i] += out.g[i] * out.xhat[i];
    dbeta[i] += out.g[i];
  }
  load_vec8<kWhole>(args.gamma + column, args.columns - column, other);
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) out.g[i] *= other[i];
}

/// Sums of g and g · x̂ over a row, later replaced by their means times rstd.
struct RowMeans {
  float g;
  float g_xhat;
};

// Computes dz and writes dresidual and dx of eight elements; adds to the sum of dbias. `scaled` is the means
// times rstd.
template <bool kWhole, typename T>
SIMT_DEVICE void store_gradients(const LayernormBackward<T>& args, float rstd, const Mask& mask,
                                 std::int64_t row, std::int64_t column, const RowMeans& scaled,
                                 const Normalised& in, float (&dbias)[kVec8]) {
  const std::int64_t element = row * args.columns + column;
  const std::int64_t count = args.columns - column;
  float dz[kVec8];
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) dz[i] = rstd * in.g[i] - (scaled.g + in.xhat[i] * scaled.g_xhat);
  if (args.dresidual != nullptr) {
    if (args.accumulate_dresidual) {
      float sum[kVec8];
      load_vec8<kWhole>(args.dresidual + element, count, sum);
      SIMT_UNROLL
      for (int i = 0; i < kVec8; ++i) sum[i] += dz[i];
      store_vec8<kWhole>(args.dresidual + element, count, sum);
    } else {
      store_vec8<kWhole>(args.dresidual + element, count, dz);
    }
  }
  drop_vec8<kWhole>(mask, element, dz);
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) dbias[i] += dz[i];
  store_vec8<kWhole>(args.dx + element, count, dz);
}

// Adds the sums of all groups for one array and writes the partial sum of the block. Called by all threads.
SIMT_DEVICE void store_partial(const BackwardGroups& shape, std::int64_t columns, const float (&sum)[kVec8],
                               float* partial) {
  SIMT_SHARED(float, sums, [kBackwardThreads * kVec8]);
  const int width = shape.threads * kVec8;
  __syncthreads();
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) {
    const int group = thread_index() / shape.threads;
    sums[group * width + i * shape.threads + thread_index() % shape.threads] = sum[i];
  }
  __syncthreads();
  for (int place = thread_index(); place < width; place += shape.threads * shape.groups) {
    const std::int64_t column = place % shape.threads * kVec8 + place / shape.threads;
    if (column >= columns) continue;
    float total = 0;
    for (int group = 0; group < shape.groups; ++group) total += sums[group * width + place];
    partial[column] = total;
  }
}

/// Minimum resident backward blocks per SM. In-flight floats or partial Vec8s need so many registers that
/// only one fits.
template <typename T, bool kWhole>
constexpr int kBackwardBlocks = sizeof(T) == sizeof(float) || !kWhole ? 1 : 2;

// A block takes a chunk of rows; each group of threads takes one row at a time. Each row is read once, while
// the previous row is processed.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kBackwardThreads, kBackwardBlocks<T, kWhole>)
    layernorm_backward_kernel(LayernormBackward<T> args, BackwardGroups shape, RowChunks chunks,
                              Mask input_mask, Mask output_mask) {
  // Double-buffered, so that the sums of the next row do not overwrite sums still being read.
  SIMT_SHARED(float, sums, [2][kBackwardThreads / kWarp][2]);
  const int group = thread_index() / shape.threads;
  const int warps = shape.threads / kWarp;
  const std::int64_t column = static_cast<std::int64_t>(thread_index() % shape.threads) * kVec8;
  const std::int64_t end = chunks.end(block_index());
  const auto busy = [&](std::int64_t row) { return row < end && column < args.columns; };
  const float inverse_columns = 1.0F / static_cast<float>(args.columns);
  float dgamma[kVec8] = {};
  float dbeta[kVec8] = {};
  float dbias[kVec8] = {};
  int turn = 0;
  const std::int64_t begin = chunks.begin(block_index());
  FetchedRow<T> next = {};
  Statistics next_statistics = {};
  const auto fetch = [&](std::int64_t row) {
    if (!busy(row)) return;
    next = fetch_row<kWhole>(args, row, column);
    next_statistics = fetch_statistics(args, row);
  };
  fetch(begin + group);
  for (std::int64_t first = begin; first < end; first += shape.groups) {
    const std::int64_t row = first + group;
    Normalised in = {};
    float sum_g = 0;
    float sum_g_xhat = 0;
    if (busy(row)) {
      normalise<kWhole>(args, next, next_statistics, output_mask, row, column, in, dgamma, dbeta);
      SIMT_UNROLL
      for (int i = 0; i < kVec8; ++i) {
        sum_g += in.g[i];
        sum_g_xhat += in.g[i] * in.xhat[i];
      }
    }
    const float rstd = next_statistics.rstd;
    fetch(row + shape.groups);
    sum_g = warp_sum(sum_g);
    sum_g_xhat = warp_sum(sum_g_xhat);
    if (lane_index() == 0) {
      sums[turn][warp_index()][0] = sum_g;
      sums[turn][warp_index()][1] = sum_g_xhat;
    }
    __syncthreads();
    RowMeans means = {0, 0};
    for (int warp = group * warps; warp < (group + 1) * warps; ++warp) {
      means.g += sums[turn][warp][0];
      means.g_xhat += sums[turn][warp][1];
    }
    means.g *= inverse_columns * rstd;
    means.g_xhat *= inverse_columns * rstd;
    if (busy(row)) store_gradients<kWhole>(args, rstd, input_mask, row, column, means, in, dbias);
    turn ^= 1;
  }
  float* partial = static_cast<float*>(args.scratch) + block_index() * 3 * args.columns;
  store_partial(shape, args.columns, dgamma, partial);
  store_partial(shape, args.columns, dbeta, partial + args.columns);
  store_partial(shape, args.columns, dbias, partial + 2 * args.columns);
}

// Adds the sums of all warps for one array and writes the partial sum of the block. Called by all threads.
// `shared` has shape (warps, kVec8s · 256).
template <int kVec8s>
SIMT_DEVICE void store_warps_partial(std::int64_t columns, const float (&sum)[kVec8s][kVec8], float* shared,
                                     float* partial) {
  constexpr int kColumns = kVec8s * kWarp * kVec8;
  __syncthreads();
  // Element i of Vec8 o of lane l is at (o · 8 + i) · 32 + l, which avoids bank conflicts.
  SIMT_UNROLL
  for (int o = 0; o < kVec8s; ++o) {
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i)
      shared[warp_index() * kColumns + (o * kVec8 + i) * kWarp + lane_index()] = sum[o][i];
  }
  __syncthreads();
  for (int place = thread_index(); place < kColumns; place += kWarpThreads) {
    const int vec8 = place / kWarp / kVec8 * kWarp + place % kWarp;
    const std::int64_t column = vec8 * kVec8 + place / kWarp % kVec8;
    if (column >= columns) continue;
    float total = 0;
    SIMT_UNROLL
    for (int warp = 0; warp < kWarpThreads / kWarp; ++warp) total += shared[warp * kColumns + place];
    partial[column] = total;
  }
}

/// Rows in flight per warp in backward.
constexpr int kRowsOnTheirWay = 3;
/// Bytes of shared memory for the rows in flight: dy and z of each Vec8 of a lane.
template <typename T, int kVec8s>
constexpr std::size_t kRowRingBytes = kRowsOnTheirWay* kWarpThreads* kVec8s * 2 * kVec8 * sizeof(T);

// A block takes a chunk of rows; each warp takes one row at a time, kVec8s Vec8s per lane. Rows pass through
// shared memory, where each lane reads only what it copied, so no barrier is needed between rows.
template <typename T, int kVec8s>
__global__ void __launch_bounds__(kWarpThreads, 2)
    layernorm_backward_warp_kernel(LayernormBackward<T> args, RowChunks chunks, Mask input_mask,
                                   Mask output_mask) {
  static_assert(kRowRingBytes<T, kVec8s> >= kWarpThreads * kVec8s * kVec8 * sizeof(float));
  SIMT_DYNAMIC_SHARED(float, shared);
  T* const ring = reinterpret_cast<T*>(shared);
  constexpr int kRowsAtOnce = kWarpThreads / kWarp;
  const std::int64_t end = chunks.end(block_index());
  const float inverse_columns = 1.0F / static_cast<float>(args.columns);
  const auto column_of = [](int o) { return (o * kWarp + lane_index()) * kVec8; };
  // Only the last Vec8 of a lane may lie beyond the row.
  const auto has = [&](int o) { return o + 1 < kVec8s || column_of(o) < args.columns; };
  const auto place_of = [&](int slot, int o) {
    return ring + ((slot * kVec8s + o) * 2 * kWarpThreads + thread_index()) * kVec8;
  };
  const auto fetch = [&](int slot, std::int64_t row) {
    SIMT_UNROLL
    for (int o = 0; o < kVec8s; ++o) {
      const bool valid = row < end && has(o);
      const std::int64_t element = valid ? row * args.columns + column_of(o) : 0;
      simt::cp_async_16(place_of(slot, o), args.dy + element, valid);
      simt::cp_async_16(place_of(slot, o) + kWarpThreads * kVec8, args.z + element, valid);
    }
    simt::cp_async_commit();
  };
  float dgamma[kVec8s][kVec8] = {};
  float dbeta[kVec8s][kVec8] = {};
  float dbias[kVec8s][kVec8] = {};
  std::int64_t row = chunks.begin(block_index()) + warp_index();
  SIMT_UNROLL
  for (int ahead = 0; ahead < kRowsOnTheirWay; ++ahead) fetch(ahead, row + ahead * kRowsAtOnce);
  Statistics next = row < end ? fetch_statistics(args, row) : Statistics{};
  int slot = 0;
  for (; row < end; row += kRowsAtOnce) {
    const Statistics statistics = next;
    if (row + kRowsAtOnce < end) next = fetch_statistics(args, row + kRowsAtOnce);
    simt::cp_async_wait<kRowsOnTheirWay - 1>();
    Normalised in[kVec8s];
    RowMeans means = {0, 0};
    SIMT_UNROLL
    for (int o = 0; o < kVec8s; ++o) {
      if (!has(o)) continue;
      const FetchedRow<T> fetched = {fetch_aligned(place_of(slot, o)),
                                     fetch_aligned(place_of(slot, o) + kWarpThreads * kVec8)};
      normalise<true>(args, fetched, statistics, output_mask, row, column_of(o), in[o], dgamma[o], dbeta[o]);
      SIMT_UNROLL
      for (int i = 0; i < kVec8; ++i) {
        means.g += in[o].g[i];
        means.g_xhat += in[o].g[i] * in[o].xhat[i];
      }
    }
    fetch(slot, row + kRowsOnTheirWay * kRowsAtOnce);
    slot = slot + 1 < kRowsOnTheirWay ? slot + 1 : 0;
    means.g = warp_sum(means.g) * inverse_columns * statistics.rstd;
    means.g_xhat = warp_sum(means.g_xhat) * inverse_columns * statistics.rstd;
    SIMT_UNROLL
    for (int o = 0; o < kVec8s; ++o) {
      if (!has(o)) continue;
      store_gradients<true>(args, statistics.rstd, input_mask, row, column_of(o), means, in[o], dbias[o]);
    }
  }
  float* partial = static_cast<float*>(args.scratch) + block_index() * 3 * args.columns;
  simt::cp_async_wait<0>();
  store_warps_partial<kVec8s>(args.columns, dgamma, shared, partial);
  store_warps_partial<kVec8s>(args.columns, dbeta, shared, partial + args.columns);
  store_warps_partial<kVec8s>(args.columns, dbias, shared, partial + 2 * args.columns);
}

// Adds eight values to sums in memory that only this thread accesses; overwrites them if `first`.
SIMT_DEVICE void add_vec8(float* sums, std::int64_t count, bool first, const float (&values)[kVec8]) {
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) {
    if (i < count) sums[i] = first ? values[i] : sums[i] + values[i];
  }
}

// A block takes a chunk of rows of any width, one at a time, and keeps its sums in scratch. Each row is read
// twice.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kWideThreads, 2)
    layernorm_backward_wide_kernel(LayernormBackward<T> args, RowChunks chunks, Mask input_mask,
                                   Mask output_mask) {
  float* partial = static_cast<float*>(args.scratch) + block_index() * 3 * args.columns;
  const std::int64_t begin = chunks.begin(block_index());
  for (std::int64_t row = begin; row < chunks.end(block_index()); ++row) {
    const Statistics statistics = fetch_statistics(args, row);
    Normalised in;
    RowMeans means = {0, 0};
    for (std::int64_t column = thread_index() * kVec8; column < args.columns;
         column += kWideThreads * kVec8) {
      const std::int64_t count = args.columns - column;
      float dgamma[kVec8] = {};
      float dbeta[kVec8] = {};
      normalise<kWhole>(args, fetch_row<kWhole>(args, row, column), statistics, output_mask, row, column, in,
                        dgamma, dbeta);
      add_vec8(partial + column, count, row == begin, dgamma);
      add_vec8(partial + args.columns + column, count, row == begin, dbeta);
      SIMT_UNROLL
      for (int i = 0; i < kVec8; ++i) {
        means.g += in.g[i];
        means.g_xhat += in.g[i] * in.xhat[i];
      }
    }
    const float scale = statistics.rstd / static_cast<float>(args.columns);
    means.g = block_sum<kWideThreads>(means.g) * scale;
    __syncthreads();
    means.g_xhat = block_sum<kWideThreads>(means.g_xhat) * scale;
    __syncthreads();
    for (std::int64_t column = thread_index() * kVec8; column < args.columns;
         column += kWideThreads * kVec8) {
      float unused[kVec8] = {};
      float dbias[kVec8] = {};
      normalise<kWhole>(args, fetch_row<kWhole>(args, row, column), statistics, output_mask, row, column, in,
                        unused, unused);
      store_gradients<kWhole>(args, statistics.rstd, input_mask, row, column, means, in, dbias);
      add_vec8(partial + 2 * args.columns + column, args.columns - column, row == begin, dbias);
    }
  }
}

}  // namespace

template <typename T>
void layernorm_backward(Cuda backend, const LayernormBackward<T>& args) {
  if (args.rows * args.columns == 0) return;
  const Mask input_mask(args.input_dropout);
  const Mask output_mask(args.output_dropout);
  const RowChunks chunks = backward_chunks(args.rows, args.columns);
  const bool whole = args.columns % kVec8 == 0 && input_mask.whole() && output_mask.whole() &&
                     on_16_bytes(args.dy, args.z, args.gamma, args.dx, args.dresidual);
  const dim3 grid = blocks_for(chunks.count, 1);
  // For 16-bit elements, registers hold the sums of three or four Vec8s per lane.
  const auto by_warps = [&]<int kVec8s>() {
    simt::launch("layernorm_backward_warp", layernorm_backward_warp_kernel<T, kVec8s>,
                 {grid, dim3(kWarpThreads), kRowRingBytes<T, kVec8s>, backend.stream}, args, chunks,
                 input_mask, output_mask);
  };
  constexpr std::int64_t kVec8Columns = kWarp * kVec8;
  const bool warps =
      sizeof(T) < sizeof(float) && whole && args.columns > 2 * kVec8Columns && args.columns <= kWarpColumns;
  if constexpr (sizeof(T) < sizeof(float)) {
    if (warps)
      args.columns <= 3 * kVec8Columns ? by_warps.template operator()<3>()
                                       : by_warps.template operator()<4>();
  }
  if (!warps) {
    by_vec8s(whole, [&]<bool kWhole>() {
      const BackwardGroups shape(args.columns);
      if (shape.fits()) {
        simt::launch("layernorm_backward", layernorm_backward_kernel<T, kWhole>,
                     {grid, dim3(static_cast<unsigned>(shape.threads * shape.groups)), 0, backend.stream},
                     args, shape, chunks, input_mask, output_mask);
      } else {
        simt::launch("layernorm_backward_wide", layernorm_backward_wide_kernel<T, kWhole>,
                     {grid, dim3(kWideThreads), 0, backend.stream}, args, chunks, input_mask, output_mask);
      }
    });
  }
  const auto* partials = static_cast<const float*>(args.scratch);
  add_partial_sums<T>({chunks.count, args.columns, 3, partials, {args.dgamma, args.dbeta, args.dbias}},
                      backend.stream);
}

template <typename T>
std::size_t scratch_bytes(Cuda, const LayernormBackward<T>& args) {
  return static_cast<std::size_t>(backward_chunks(args.rows, args.columns).count * 3 * args.columns) *
         sizeof(float);
}

#define VOCA_INSTANTIATE(T)                                            \
  template void layernorm_backward(Cuda, const LayernormBackward<T>&); \
  template std::size_t scratch_bytes(Cuda, const LayernormBackward<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
