#include "kernels/layernorm.h"

#include <cmath>

#include "kernels/cpu/dropout.h"
#include "kernels/cpu/rows.h"

namespace voca::kernels {

using namespace cpu;

namespace {

// z = residual + D_in(x + bias)
template <typename T>
void add_residual(const LayernormForward<T>& args, std::int64_t row, DropoutRun<T>& dropout, T* z_row) {
  const std::int32_t threshold = dropout.threshold();
  const T scale = dropout.scale();
  for (std::int64_t begin = 0; begin < args.columns; begin += DropoutRun<T>::kLength) {
    const std::int64_t count = std::min(DropoutRun<T>::kLength, args.columns - begin);
    const std::int64_t first = row * args.columns + begin;
    const std::uint16_t* bits = dropout.bits(first, count);
    const T* x = args.x + first;
    const T* bias = args.bias != nullptr ? args.bias + begin : nullptr;
    const T* residual = args.residual != nullptr ? args.residual + first : nullptr;
    T* z = z_row + begin;
#pragma omp simd
    for (std::int64_t j = 0; j < count; ++j) {
      const T u = (bias != nullptr ? x[j] + bias[j] : x[j]) * dropout_factor(bits[j], threshold, scale);
      z[j] = residual != nullptr ? residual[j] + u : u;
    }
  }
}

// y = D_out((z − mean) · rstd · gamma + beta); y may be the same array as z.
template <typename T>
void normalise(const LayernormForward<T>& args, std::int64_t row, DropoutRun<T>& dropout, Stat<T> mean,
               Stat<T> rstd, const T* z_row) {
  const std::int32_t threshold = dropout.threshold();
  const T scale = dropout.scale();
  for (std::int64_t begin = 0; begin < args.columns; begin += DropoutRun<T>::kLength) {
    const std::int64_t count = std::min(DropoutRun<T>::kLength, args.columns - begin);
    const std::int64_t first = row * args.columns + begin;
    const std::uint16_t* bits = dropout.bits(first, count);
    const T* z = z_row + begin;
    const T* gamma = args.gamma + begin;
    const T* beta = args.beta + begin;
    T* y = args.y + first;
#pragma omp simd
    for (std::int64_t j = 0; j < count; ++j) {
      y[j] = ((z[j] - mean) * rstd * gamma[j] + beta[j]) * dropout_factor(bits[j], threshold, scale);
    }
  }
}

// Partial sums of the parameter gradients over one chunk of rows, in scratch.
template <typename T>
struct ParameterSums {
  Stat<T>* dgamma;
  Stat<T>* dbeta;
  Stat<T>* dbias;
};

// Backward of one row. The first pass writes g = D_out'(dy) · gamma to dx and sums over it; the second
// computes dz.
template <typename T>
void backward_row(const LayernormBackward<T>& args, std::int64_t row, DropoutRun<T>& output_dropout,
                  DropoutRun<T>& input_dropout, const ParameterSums<T>& sums) {
  const Stat<T> mean = args.mean[row];
  const Stat<T> rstd = args.rstd[row];
  Stat<T> sum_g = 0;
  Stat<T> sum_g_xhat = 0;
  for (std::int64_t begin = 0; begin < args.columns; begin += DropoutRun<T>::kLength) {
    const std::int64_t count = std::min(DropoutRun<T>::kLength, args.columns - begin);
    const std::int64_t first = row * args.columns + begin;
    const std::uint16_t* bits = output_dropout.bits(first, count);
    const std::int32_t threshold = output_dropout.threshold();
    const T scale = output_dropout.scale();
    const T* dy = args.dy + first;
    const T* z = args.z + first;
    const T* gamma = args.gamma + begin;
    T* g_row = args.dx + first;
    Stat<T>* dgamma = sums.dgamma + begin;
    Stat<T>* dbeta = sums.dbeta + begin;
    lane_sum2(count, sum_g, sum_g_xhat, [=](std::int64_t j, Stat<T>& g, Stat<T>& g_xhat) {
      const Stat<T> d = dy[j] * dropout_factor(bits[j], threshold, scale);
      const Stat<T> xhat = (z[j] - mean) * rstd;
      dgamma[j] += d * xhat;
      dbeta[j] += d;
      g = d * gamma[j];
      g_xhat = g * xhat;
      g_row[j] = static_cast<T>(g);
    });
  }
  const Stat<T> mean_g = sum_g / static_cast<Stat<T>>(args.columns);
  const Stat<T> mean_g_xhat = sum_g_xhat / static_cast<Stat<T>>(args.columns);
  for (std::int64_t begin = 0; begin < args.columns; begin += DropoutRun<T>::kLength) {
    const std::int64_t count = std::min(DropoutRun<T>::kLength, args.columns - begin);
    const std::int64_t first = row * args.columns + begin;
    const std::uint16_t* bits = input_dropout.bits(first, count);
    const std::int32_t threshold = input_dropout.threshold();
    const T scale = input_dropout.scale();
    const T* z = args.z + first;
    T* dx = args.dx + first;
    T* dresidual = args.dresidual != nullptr ? args.dresidual + first : nullptr;
    const bool accumulate = args.accumulate_dresidual;
    Stat<T>* dbias = sums.dbias + begin;
#pragma omp simd
    for (std::int64_t j = 0; j < count; ++j) {
      const Stat<T> dz = rstd * (dx[j] - mean_g - (z[j] - mean) * rstd * mean_g_xhat);
      if (dresidual != nullptr) dresidual[j] = static_cast<T>(accumulate ? dresidual[j] + dz : dz);
      const Stat<T> d = dz * dropout_factor(bits[j], threshold, scale);
      dx[j] = static_cast<T>(d);
      dbias[j] += d;
    }
  }
}

}  // namespace

template <typename T>
void layernorm_forward(Cpu, const LayernormForward<T>& args) {
  const RowChunks chunks = row_chunks(args.rows, args.columns);
  const auto n = static_cast<Stat<T>>(args.columns);
  parallel_for(chunks.count, [&](std::int64_t chunk) {
    DropoutRun<T> input_dropout(args.input_dropout);
    DropoutRun<T> output_dropout(args.output_dropout);
    for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) {
      T* z = (args.z != nullptr ? args.z : args.y) + row * args.columns;
      add_residual(args, row, input_dropout, z);
      const Stat<T> mean = lane_sum<Stat<T>>(args.columns, [=](std::int64_t j) { return Stat<T>{z[j]}; }) / n;
      const Stat<T> variance = lane_sum<Stat<T>>(args.columns,
                                                 [=](std::int64_t j) {
                                                   const Stat<T> deviation = z[j] - mean;
                                                   return deviation * deviation;
                                                 }) /
                               n;
      const Stat<T> rstd = Stat<T>{1} / std::sqrt(variance + static_cast<Stat<T>>(args.eps));
      normalise(args, row, output_dropout, mean, rstd, z);
      if (args.mean != nullptr) args.mean[row] = mean;
      if (args.rstd != nullptr) args.rstd[row] = rstd;
    }
  });
}

template <typename T>
void layernorm_backward(Cpu, const LayernormBackward<T>& args) {
  const RowChunks chunks = row_chunks(args.rows, args.columns);
  auto* partials = static_cast<Stat<T>*>(args.scratch);
  const std::int64_t stride = 3 * args.columns;
  parallel_for(chunks.count, [&](std::int64_t chunk) {
    DropoutRun<T> output_dropout(args.output_dropout);
    DropoutRun<T> input_dropout(args.input_dropout);
    Stat<T>* mine = partials + chunk * stride;
    std::fill_n(mine, stride, Stat<T>{0});
    const ParameterSums<T> sums{mine, mine + args.columns, mine + 2 * args.columns};
    for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) {
      backward_row(args, row, output_dropout, input_dropout, sums);
    }
  });
  add_partial_sums(chunks.count, stride, args.columns, partials, args.dgamma);
  add_partial_sums(chunks.count, stride, args.columns, partials + args.columns, args.dbeta);
  if (args.dbias != nullptr) {
    add_partial_sums(chunks.count, stride, args.columns, partials + 2 * args.columns, args.dbias);
  }
}

template <typename T>
std::size_t scratch_bytes(Cpu, const LayernormBackward<T>& args) {
  return static_cast<std::size_t>(row_chunks(args.rows, args.columns).count * 3 * args.columns) *
         sizeof(Stat<T>);
}

#define VOCA_INSTANTIATE(T)                                           \
  template void layernorm_forward(Cpu, const LayernormForward<T>&);   \
  template void layernorm_backward(Cpu, const LayernormBackward<T>&); \
  template std::size_t scratch_bytes(Cpu, const LayernormBackward<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
