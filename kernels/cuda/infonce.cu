#include "kernels/infonce.h"

#include "kernels/cuda/elements.h"
#include "kernels/cuda/reduce.h"
#include "kernels/types.h"

// A batch has a few dozen rows: each similarity is a dot product computed by one warp, and everything after
// it is in double, as on the CPU.

namespace voca::kernels {

using namespace cuda;

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

/// Gradient weights W · R · temperature (rows, columns), at the start of scratch; the row losses follow.
template <typename T>
SIMT_DEVICE float* weights_of(const InfoNce<T>& args) {
  return static_cast<float*>(args.scratch);
}
template <typename T>
SIMT_DEVICE double* row_losses_of(const InfoNce<T>& args) {
  const std::size_t weights = align_up(static_cast<std::size_t>(args.rows * args.columns) * sizeof(float));
  return reinterpret_cast<double*>(static_cast<std::byte*>(args.scratch) + weights);
}

template <int kBlock>
SIMT_DEVICE double block_max(double value) {
  SIMT_SHARED(double, maxima, [kBlock / kWarp]);
  value = warp_max(value);
  if (lane_index() == 0) maxima[warp_index()] = value;
  __syncthreads();
  double most = maxima[0];
  SIMT_UNROLL
  for (int warp = 1; warp < kBlock / kWarp; ++warp) most = fmax(most, maxima[warp]);
  return most;
}

// Writes row i of S · temperature to scratch; one warp per column.
template <typename T>
SIMT_DEVICE void similarities(const InfoNce<T>& args, std::int64_t i) {
  const T* zv = args.zv + i * args.width;
  for (std::int64_t j = warp_index(); j < args.columns; j += kWarps) {
    const T* za = args.za + j * args.width;
    float dot = 0;
    for (std::int64_t k = lane_index(); k < args.width; k += kWarp) dot += to_float(zv[k]) * to_float(za[k]);
    dot = warp_sum(dot);
    if (lane_index() == 0) weights_of(args)[i * args.columns + j] = dot;
  }
}

// dz = factor · Σ_j weight(j) · z(j), one element per thread.
template <typename T, typename Weight>
SIMT_DEVICE void weighted_rows(std::int64_t n, std::int64_t width, const T* z, float factor, T* dz,
                               Weight weight) {
  for (std::int64_t k = thread_index(); k < width; k += kThreads) {
    float sum = 0;
    for (std::int64_t j = 0; j < n; ++j) sum += weight(j) * to_float(z[j * width + k]);
    dz[k] = from_float<T>(factor * sum);
  }
}

template <typename T>
SIMT_DEVICE float gradient_factor(const InfoNce<T>& args) {
  return static_cast<float>(scaled(args.grad, args.loss_scale) /
                            (static_cast<double>(args.rows) * args.temperature));
}

// A block computes the loss, the weights and dzv of row i.
template <typename T>
__global__ void __launch_bounds__(kThreads) infonce_rows_kernel(InfoNce<T> args) {
  const std::int64_t i = block_index();
  float* row = weights_of(args) + i * args.columns;
  const double inverse = 1.0 / args.temperature;
  similarities(args, i);
  __syncthreads();
  // Each sum has its own maximum, so that positives far below the hardest negative do not underflow.
  double most = -INFINITY;
  double most_positive = -INFINITY;
  for (std::int64_t j = thread_index(); j < args.columns; j += kThreads) {
    const double s = static_cast<double>(row[j]) * inverse;
    most = fmax(most, s);
    if (label_weight(args, i, j) > 0) most_positive = fmax(most_positive, s);
  }
  most = block_max<kThreads>(most);
  __syncthreads();
  most_positive = block_max<kThreads>(most_positive);
  double all = 0;
  double positive = 0;
  for (std::int64_t j = thread_index(); j < args.columns; j += kThreads) {
    const double s = static_cast<double>(row[j]) * inverse;
    const double weight = label_weight(args, i, j);
    all += exp(s - most);
    if (weight > 0) positive += weight * exp(s - most_positive);
  }
  all = block_sum<kThreads>(all);
  __syncthreads();
  positive = block_sum<kThreads>(positive);
  const double log_all = log_add_exp(most + log(all), kInfoNceLogFloor);
  const double log_positive = most_positive + log(positive);
  if (thread_index() == 0) row_losses_of(args)[i] = log_all - log_positive;
  if (args.dzv == nullptr) return;
  for (std::int64_t j = thread_index(); j < args.columns; j += kThreads) {
    const double s = static_cast<double>(row[j]) * inverse;
    const double weight = label_weight(args, i, j);
    double gradient = exp(s - log_all);
    if (weight > 0) gradient -= weight * exp(s - log_positive);
    row[j] = static_cast<float>(gradient);
  }
  __syncthreads();
  weighted_rows(args.columns, args.width, args.za, gradient_factor(args), args.dzv + i * args.width,
                [row](std::int64_t j) { return row[j]; });
}

// A block computes dza of column j. The first block also sums the losses.
template <typename T>
__global__ void __launch_bounds__(kThreads) infonce_columns_kernel(InfoNce<T> args) {
  const std::int64_t j = block_index();
  if (j == 0) {
    double sum = 0;
    for (std::int64_t i = thread_index(); i < args.rows; i += kThreads) sum += row_losses_of(args)[i];
    sum = block_sum<kThreads>(sum);
    if (thread_index() == 0) args.loss[0] = static_cast<float>(sum / static_cast<double>(args.rows));
  }
  if (args.dza == nullptr) return;
  const float* weights = weights_of(args) + j;
  const std::int64_t columns = args.columns;
  weighted_rows(args.rows, args.width, args.zv, gradient_factor(args), args.dza + j * args.width,
                [weights, columns](std::int64_t i) { return weights[i * columns]; });
}

}  // namespace

template <typename T>
std::size_t scratch_bytes(Cuda, const InfoNce<T>& args) {
  return align_up(static_cast<std::size_t>(args.rows * args.columns) * sizeof(float)) +
         static_cast<std::size_t>(args.rows) * sizeof(double);
}

template <typename T>
void infonce(Cuda backend, const InfoNce<T>& args) {
  simt::launch("infonce_rows", infonce_rows_kernel<T>,
               {blocks_for(args.rows, 1), dim3(kThreads), 0, backend.stream}, args);
  const std::int64_t columns = args.dza != nullptr ? args.columns : 1;
  simt::launch("infonce_columns", infonce_columns_kernel<T>,
               {blocks_for(columns, 1), dim3(kThreads), 0, backend.stream}, args);
}

#define VOCA_INSTANTIATE(T)                       \
  template void infonce(Cuda, const InfoNce<T>&); \
  template std::size_t scratch_bytes(Cuda, const InfoNce<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
