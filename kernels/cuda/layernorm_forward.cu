#include "kernels/cuda/dropout.h"
#include "kernels/cuda/layernorm_shapes.h"
#include "kernels/cuda/reduce.h"
#include "kernels/layernorm.h"

namespace voca::kernels {

using namespace cuda;

namespace {

constexpr int kVec8sPerLane = 4;

template <typename T>
struct FetchedInput {
  Vec8<T> x;
  Vec8<T> residual;
};
template <bool kWhole, typename T>
SIMT_DEVICE FetchedInput<T> fetch_input(const LayernormForward<T>& args, std::int64_t row,
                                        std::int64_t column) {
  const std::int64_t element = row * args.columns + column;
  const std::int64_t count = args.columns - column;
  FetchedInput<T> fetched;
  fetched.x = fetch_vec8<kWhole>(args.x + element, count);
  if (args.residual != nullptr) fetched.residual = fetch_vec8<kWhole>(args.residual + element, count);
  return fetched;
}

// z = residual + D_in(x + bias), rounded to T.
template <bool kWhole, typename T>
SIMT_DEVICE void form_z(const LayernormForward<T>& args, const FetchedInput<T>& fetched, const Mask& mask,
                        std::int64_t row, std::int64_t column, float (&z)[kVec8]) {
  float other[kVec8];
  unpack_vec8(fetched.x, z);
  if (args.bias != nullptr) {
    load_vec8<kWhole>(args.bias + column, args.columns - column, other);
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) z[i] += other[i];
  }
  drop_vec8<kWhole>(mask, row * args.columns + column, z);
  if (args.residual != nullptr) {
    unpack_vec8(fetched.residual, other);
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) z[i] += other[i];
  }
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) z[i] = rounded_to<T>(z[i]);
}

// y = D_out((z − mean) · rstd · gamma + beta)
template <bool kWhole, typename T>
SIMT_DEVICE void store_y(const LayernormForward<T>& args, const Mask& mask, std::int64_t row,
                         std::int64_t column, float mean, float rstd, const float (&z)[kVec8]) {
  const std::int64_t element = row * args.columns + column;
  const std::int64_t count = args.columns - column;
  float gamma[kVec8];
  float y[kVec8];
  load_vec8<kWhole>(args.gamma + column, count, gamma);
  load_vec8<kWhole>(args.beta + column, count, y);
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) y[i] += (z[i] - mean) * rstd * gamma[i];
  drop_vec8<kWhole>(mask, element, y);
  store_vec8<kWhole>(args.y + element, count, y);
}

// Sum over the first `count` elements.
template <bool kWhole>
SIMT_DEVICE float vec8_sum(const float (&values)[kVec8], std::int64_t count) {
  float sum = 0;
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) sum += kWhole || i < count ? values[i] : 0.0F;
  return sum;
}
template <bool kWhole>
SIMT_DEVICE float vec8_square_sum(const float (&values)[kVec8], float mean, std::int64_t count) {
  float sum = 0;
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) sum += kWhole || i < count ? (values[i] - mean) * (values[i] - mean) : 0.0F;
  return sum;
}

template <typename T>
SIMT_DEVICE void store_statistics(const LayernormForward<T>& args, std::int64_t row, float mean, float rstd) {
  if (args.mean != nullptr) args.mean[row] = mean;
  if (args.rstd != nullptr) args.rstd[row] = rstd;
}

// A warp takes a row.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kWarpThreads)
    layernorm_forward_kernel(LayernormForward<T> args, Mask input_mask, Mask output_mask) {
  const std::int64_t row = block_index() * (kWarpThreads / kWarp) + warp_index();
  if (row >= args.rows) return;
  const auto n = static_cast<float>(args.columns);
  FetchedInput<T> fetched[kVec8sPerLane];
  SIMT_UNROLL
  for (int o = 0; o < kVec8sPerLane; ++o) {
    const std::int64_t column = (o * kWarp + lane_index()) * kVec8;
    if (column < args.columns) fetched[o] = fetch_input<kWhole>(args, row, column);
  }
  float z[kVec8sPerLane][kVec8];
  float sum = 0;
  SIMT_UNROLL
  for (int o = 0; o < kVec8sPerLane; ++o) {
    const std::int64_t column = (o * kWarp + lane_index()) * kVec8;
    const std::int64_t count = args.columns - column;
    if (count <= 0) continue;
    form_z<kWhole>(args, fetched[o], input_mask, row, column, z[o]);
    if (args.z != nullptr) store_vec8<kWhole>(args.z + row * args.columns + column, count, z[o]);
    sum += vec8_sum<kWhole>(z[o], count);
  }
  const float mean = warp_sum(sum) / n;
  float squares = 0;
  SIMT_UNROLL
  for (int o = 0; o < kVec8sPerLane; ++o) {
    const std::int64_t count = args.columns - (o * kWarp + lane_index()) * kVec8;
    if (count > 0) squares += vec8_square_sum<kWhole>(z[o], mean, count);
  }
  const float rstd = 1.0F / sqrtf(warp_sum(squares) / n + static_cast<float>(args.eps));
  SIMT_UNROLL
  for (int o = 0; o < kVec8sPerLane; ++o) {
    const std::int64_t column = (o * kWarp + lane_index()) * kVec8;
    if (column < args.columns) store_y<kWhole>(args, output_mask, row, column, mean, rstd, z[o]);
  }
  if (lane_index() == 0) store_statistics(args, row, mean, rstd);
}

// A block takes a row of any width. z goes to memory (to y in inference), and each thread reads back only
// what it wrote.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kWideThreads)
    layernorm_forward_wide_kernel(LayernormForward<T> args, Mask input_mask, Mask output_mask) {
  const std::int64_t row = block_index();
  const auto n = static_cast<float>(args.columns);
  T* z_row = (args.z != nullptr ? args.z : args.y) + row * args.columns;
  float z[kVec8];
  float sum = 0;
  for (std::int64_t column = thread_index() * kVec8; column < args.columns; column += kWideThreads * kVec8) {
    form_z<kWhole>(args, fetch_input<kWhole>(args, row, column), input_mask, row, column, z);
    store_vec8<kWhole>(z_row + column, args.columns - column, z);
    sum += vec8_sum<kWhole>(z, args.columns - column);
  }
  const float mean = block_sum<kWideThreads>(sum) / n;
  float squares = 0;
  for (std::int64_t column = thread_index() * kVec8; column < args.columns; column += kWideThreads * kVec8) {
    load_vec8<kWhole>(z_row + column, args.columns - column, z);
    squares += vec8_square_sum<kWhole>(z, mean, args.columns - column);
  }
  __syncthreads();
  const float rstd = 1.0F / sqrtf(block_sum<kWideThreads>(squares) / n + static_cast<float>(args.eps));
  for (std::int64_t column = thread_index() * kVec8; column < args.columns; column += kWideThreads * kVec8) {
    load_vec8<kWhole>(z_row + column, args.columns - column, z);
    store_y<kWhole>(args, output_mask, row, column, mean, rstd, z);
  }
  if (thread_index() == 0) store_statistics(args, row, mean, rstd);
}

}  // namespace

template <typename T>
void layernorm_forward(Cuda backend, const LayernormForward<T>& args) {
  if (args.rows * args.columns == 0) return;
  const Mask input_mask(args.input_dropout);
  const Mask output_mask(args.output_dropout);
  const bool whole = args.columns % kVec8 == 0 && input_mask.whole() && output_mask.whole() &&
                     on_16_bytes(args.x, args.bias, args.residual, args.gamma, args.beta, args.z, args.y);
  by_vec8s(whole, [&]<bool kWhole>() {
    if (args.columns <= kWarpColumns) {
      simt::launch("layernorm_forward", layernorm_forward_kernel<T, kWhole>,
                   {blocks_for(args.rows, kWarpThreads / kWarp), dim3(kWarpThreads), 0, backend.stream}, args,
                   input_mask, output_mask);
    } else {
      simt::launch("layernorm_forward_wide", layernorm_forward_wide_kernel<T, kWhole>,
                   {blocks_for(args.rows, 1), dim3(kWideThreads), 0, backend.stream}, args, input_mask,
                   output_mask);
    }
  });
}

#define VOCA_INSTANTIATE(T) template void layernorm_forward(Cuda, const LayernormForward<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
