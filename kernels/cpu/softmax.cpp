#include "kernels/softmax.h"

#include "kernels/cpu/dropout.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/rows.h"

namespace voca::kernels {

using namespace cpu;

namespace {

constexpr std::int64_t kTile = 16;  // edge of a tile of the attention mask

// p = softmax(scale · s) of one row; p may be the same array as s.
template <typename T>
void softmax_row(std::int64_t n, T scale, const T* s, T* p) {
  // Scale before taking the maximum: a negative scale reverses the order of the scores.
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) p[j] = scale * s[j];
  const T most = lane_max(n, p);
  const T sum = lane_sum<T>(n, [=](std::int64_t j) {
    const T e = exponential(p[j] - most);
    p[j] = e;
    return e;
  });
  const T inverse = T{1} / sum;
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) p[j] *= inverse;
}

// Calls f(bits of 16 columns of row i, i, first column, columns) for the band of up to 16 rows from `row` on,
// one mask tile at a time.
template <typename F>
void for_tiles(const Dropout& dropout, std::int64_t matrix, std::int64_t row, std::int64_t query_length,
               std::int64_t key_length, F f) {
  alignas(64) std::uint16_t bits[kTile * kTile];
  for (std::int64_t column = 0; column < key_length; column += kTile) {
    attention_dropout_tile(dropout, matrix, row, column, query_length, key_length, kTile, bits);
    for (std::int64_t i = row; i < std::min(row + kTile, query_length); ++i) {
      f(bits + (i - row) * kTile, i, column, std::min(kTile, key_length - column));
    }
  }
}

}  // namespace

template <typename T>
void softmax_forward(Cpu, const SoftmaxForward<T>& args) {
  const std::int64_t bands = divide_up(args.query_length, kTile);
  const T keep_scale = static_cast<T>(args.dropout.scale());
  const auto threshold = static_cast<std::int32_t>(args.dropout.threshold);
  parallel_for(args.batch * bands, [&](std::int64_t index) {
    const std::int64_t matrix = index / bands;
    const std::int64_t row = index % bands * kTile;
    const std::int64_t offset = matrix * args.query_length * args.key_length;
    for (std::int64_t i = row; i < std::min(row + kTile, args.query_length); ++i) {
      softmax_row(args.key_length, static_cast<T>(args.scale), args.scores + offset + i * args.key_length,
                  args.probabilities + offset + i * args.key_length);
    }
    if (args.dropped == nullptr) return;
    for_tiles(args.dropout, matrix, row, args.query_length, args.key_length,
              [&](const std::uint16_t* bits, std::int64_t i, std::int64_t column, std::int64_t count) {
                const T* p = args.probabilities + offset + i * args.key_length + column;
                T* dropped = args.dropped + offset + i * args.key_length + column;
#pragma omp simd
                for (std::int64_t j = 0; j < count; ++j) {
                  dropped[j] = p[j] * dropout_factor(bits[j], threshold, keep_scale);
                }
              });
  });
}

template <typename T>
void softmax_backward(Cpu, const SoftmaxBackward<T>& args) {
  const std::int64_t bands = divide_up(args.query_length, kTile);
  const T keep_scale = static_cast<T>(args.dropout.scale());
  const auto threshold = static_cast<std::int32_t>(args.dropout.threshold);
  parallel_for(args.batch * bands, [&](std::int64_t index) {
    const std::int64_t matrix = index / bands;
    const std::int64_t row = index % bands * kTile;
    const std::int64_t offset = matrix * args.query_length * args.key_length;
    for_tiles(args.dropout, matrix, row, args.query_length, args.key_length,
              [&](const std::uint16_t* bits, std::int64_t i, std::int64_t column, std::int64_t count) {
                const T* ddropped = args.ddropped + offset + i * args.key_length + column;
                T* dp = args.dscores + offset + i * args.key_length + column;
#pragma omp simd
                for (std::int64_t j = 0; j < count; ++j) {
                  dp[j] = ddropped[j] * dropout_factor(bits[j], threshold, keep_scale);
                }
              });
    const T scale = static_cast<T>(args.scale);
    for (std::int64_t i = row; i < std::min(row + kTile, args.query_length); ++i) {
      const T* p = args.probabilities + offset + i * args.key_length;
      T* ds = args.dscores + offset + i * args.key_length;
      const T dot = lane_sum<T>(args.key_length, [=](std::int64_t j) { return ds[j] * p[j]; });
#pragma omp simd
      for (std::int64_t j = 0; j < args.key_length; ++j) ds[j] = scale * p[j] * (ds[j] - dot);
    }
  });
}

#define VOCA_INSTANTIATE(T)                                     \
  template void softmax_forward(Cpu, const SoftmaxForward<T>&); \
  template void softmax_backward(Cpu, const SoftmaxBackward<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
