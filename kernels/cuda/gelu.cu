#include "kernels/gelu.h"

#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/dropout.h"
#include "kernels/cuda/normal.h"

namespace voca::kernels {

using namespace cuda;

namespace {

/// Rows in flight per thread in forward.
constexpr int kRowsAtOnce = 4;
constexpr int kRowsPerBlock = kColumnWarps * kRowsAtOnce;

SIMT_DEVICE void add(const float (&bias)[kVec8], float (&u)[kVec8]) {
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) u[i] += bias[i];
}
template <bool kWhole, typename T>
SIMT_DEVICE void load_bias(const T* bias, std::int64_t column, std::int64_t count, float (&out)[kVec8]) {
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) out[i] = 0;
  if (bias != nullptr) load_vec8<kWhole>(bias + column, count, out);
}

// A block takes 32 Vec8s of columns and 32 rows, four per thread.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kColumnThreads) gelu_forward_kernel(GeluForward<T> args, Mask mask) {
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.y) * kWarp + lane_index()) * kVec8;
  const std::int64_t count = args.columns - column;
  if (count <= 0) return;
  const std::int64_t first = block_index() * kRowsPerBlock + warp_index();
  Vec8<T> fetched[kRowsAtOnce];
  SIMT_UNROLL
  for (int r = 0; r < kRowsAtOnce; ++r) {
    const std::int64_t row = first + r * kColumnWarps;
    if (row < args.rows) fetched[r] = fetch_vec8<kWhole>(args.x + row * args.columns + column, count);
  }
  float bias[kVec8];
  load_bias<kWhole>(args.bias, column, count, bias);
  SIMT_UNROLL
  for (int r = 0; r < kRowsAtOnce; ++r) {
    const std::int64_t row = first + r * kColumnWarps;
    if (row >= args.rows) return;
    const std::int64_t element = row * args.columns + column;
    float u[kVec8];
    unpack_vec8(fetched[r], u);
    add(bias, u);
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) u[i] *= normal<T>(u[i]).cdf;
    drop_vec8<kWhole>(mask, element, u);
    store_vec8<kWhole>(args.y + element, count, u);
  }
}

template <typename T>
struct Fetched {
  Vec8<T> x;
  Vec8<T> dy;
};

/// Minimum resident backward blocks per SM, which limits the registers.
template <typename T, bool kWhole>
constexpr int kBackwardBlocks = sizeof(T) == sizeof(float) || !kWhole ? 2 : 3;

template <typename T, bool kWhole>
__global__ void __launch_bounds__(kColumnThreads, (kBackwardBlocks<T, kWhole>))
    gelu_backward_kernel(GeluBackward<T> args, RowChunks chunks, Mask mask) {
  float* partials = args.dbias != nullptr ? static_cast<float*>(args.scratch) : nullptr;
  float bias[kVec8];
  const std::int64_t my_column = (block_index() * kWarp + lane_index()) * kVec8;
  if (my_column < args.columns) load_bias<kWhole>(args.bias, my_column, args.columns - my_column, bias);
  for_vec8s_of_rows<sizeof(T) < sizeof(float) ? 2 : 1>(
      chunks, args.columns, partials,
      [&](std::int64_t row, std::int64_t column, std::int64_t count) {
        const std::int64_t element = row * args.columns + column;
        return Fetched<T>{fetch_vec8<kWhole>(args.x + element, count),
                          fetch_vec8<kWhole>(args.dy + element, count)};
      },
      [&](const Fetched<T>& fetched, std::int64_t row, std::int64_t column, std::int64_t count,
          float(&dx)[kVec8]) {
        const std::int64_t element = row * args.columns + column;
        float u[kVec8];
        unpack_vec8(fetched.x, u);
        unpack_vec8(fetched.dy, dx);
        add(bias, u);
        SIMT_UNROLL
        for (int i = 0; i < kVec8; ++i) {
          const Normal at = normal<T>(u[i]);
          dx[i] *= at.cdf + u[i] * at.pdf;
        }
        drop_vec8<kWhole>(mask, element, dx);
        store_vec8<kWhole>(args.dx + element, count, dx);
      });
}

}  // namespace

template <typename T>
void gelu_forward(Cuda backend, const GeluForward<T>& args) {
  if (args.rows * args.columns == 0) return;
  const Mask mask(args.dropout);
  const dim3 grid(static_cast<unsigned>(divide_up(args.rows, kRowsPerBlock)),
                  static_cast<unsigned>(divide_up(args.columns, kColumnsPerBlock)));
  by_vec8s(args.columns % kVec8 == 0 && mask.whole() && on_16_bytes(args.x, args.bias, args.y),
           [&]<bool kWhole>() {
             simt::launch("gelu_forward", gelu_forward_kernel<T, kWhole>,
                          {grid, dim3(kColumnThreads), 0, backend.stream}, args, mask);
           });
}

template <typename T>
void gelu_backward(Cuda backend, const GeluBackward<T>& args) {
  if (args.rows * args.columns == 0) return;
  const RowChunks chunks = column_chunks(args.rows);
  const Mask mask(args.dropout);
  by_vec8s(args.columns % kVec8 == 0 && mask.whole() && on_16_bytes(args.dy, args.x, args.bias, args.dx),
           [&]<bool kWhole>() {
             simt::launch("gelu_backward", gelu_backward_kernel<T, kWhole>,
                          column_blocks(args.rows, args.columns, backend.stream), args, chunks, mask);
           });
  if (args.dbias == nullptr) return;
  add_partial_sums<T>({chunks.count, args.columns, 1, static_cast<const float*>(args.scratch), {args.dbias}},
                      backend.stream);
}

template <typename T>
std::size_t scratch_bytes(Cuda, const GeluBackward<T>& args) {
  return column_sums_bytes(args.rows, args.columns);
}

#define VOCA_INSTANTIATE(T)                                  \
  template void gelu_forward(Cuda, const GeluForward<T>&);   \
  template void gelu_backward(Cuda, const GeluBackward<T>&); \
  template std::size_t scratch_bytes(Cuda, const GeluBackward<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
