#include "kernels/pooling.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/chunks.h"

namespace voca::kernels {

using namespace cpu;

namespace {

/// Columns per task: running sums and maxima stay in the L1 cache.
constexpr std::int64_t kColumnBlock = 1024;

/// Block of columns of one sample; x and the outputs point at its first element.
template <typename T>
struct Block {
  const T* x;
  std::int64_t length;
  std::int64_t stride;  ///< stride between frames, in elements
  std::int64_t columns;
  T* y;
  std::int32_t* argmax;
};

template <typename T>
void pool_mean(const Block<T>& block) {
  double sum[kColumnBlock] = {};
  for (std::int64_t t = 0; t < block.length; ++t) {
    const T* row = block.x + t * block.stride;
    for (std::int64_t h = 0; h < block.columns; ++h) sum[h] += static_cast<double>(row[h]);
  }
  const auto length = static_cast<double>(block.length);
  for (std::int64_t h = 0; h < block.columns; ++h) block.y[h] = static_cast<T>(sum[h] / length);
}

template <typename T>
void pool_mean_max(const Block<T>& block) {
  double sum[kColumnBlock];
  T maximum[kColumnBlock];
  std::int32_t first[kColumnBlock];
  for (std::int64_t h = 0; h < block.columns; ++h) {
    sum[h] = static_cast<double>(block.x[h]);
    maximum[h] = block.x[h];
    first[h] = 0;
  }
  for (std::int64_t t = 1; t < block.length; ++t) {
    const T* row = block.x + t * block.stride;
    for (std::int64_t h = 0; h < block.columns; ++h) {
      const T value = row[h];
      // The first NaN is kept as the maximum. No branches, so that the loop vectorises.
      const bool take = (value > maximum[h]) | (std::isnan(value) & !std::isnan(maximum[h]));
      sum[h] += static_cast<double>(value);
      maximum[h] = take ? value : maximum[h];
      first[h] = take ? static_cast<std::int32_t>(t) : first[h];
    }
  }
  const auto length = static_cast<double>(block.length);
  for (std::int64_t h = 0; h < block.columns; ++h) {
    block.y[h] = static_cast<T>(sum[h] / length + static_cast<double>(maximum[h]));
    block.argmax[h] = first[h];
  }
}

/// Computes the gradient of frame t; argmax is null for mean pooling.
template <bool kAccumulate, typename T>
void backward_row(const T* dy, const std::int32_t* argmax, std::int32_t t, T inverse_length,
                  std::int64_t columns, T* dx) {
  if (argmax == nullptr) {
    for (std::int64_t h = 0; h < columns; ++h) {
      dx[h] = (kAccumulate ? dx[h] : T{0}) + dy[h] * inverse_length;
    }
    return;
  }
  for (std::int64_t h = 0; h < columns; ++h) {
    const T gradient = dy[h] * inverse_length + (argmax[h] == t ? dy[h] : T{0});
    dx[h] = (kAccumulate ? dx[h] : T{0}) + gradient;
  }
}

}  // namespace

template <typename T>
void pooling_forward(Cpu, const PoolingForward<T>& args) {
  const std::int64_t blocks = divide_up(args.columns, kColumnBlock);
  const std::int64_t block_elements = args.length * std::min(kColumnBlock, args.columns);
  for_row_chunks(args.batch * blocks, block_elements, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t b = task / blocks;
      const std::int64_t h = task % blocks * kColumnBlock;
      const std::int64_t out = b * args.columns + h;
      const Block<T> block{.x = args.x + b * args.length * args.columns + h,
                           .length = args.length,
                           .stride = args.columns,
                           .columns = std::min(kColumnBlock, args.columns - h),
                           .y = args.y + out,
                           .argmax = args.argmax == nullptr ? nullptr : args.argmax + out};
      if (block.argmax == nullptr) {
        pool_mean(block);
      } else {
        pool_mean_max(block);
      }
    }
  });
}

template <typename T>
void pooling_backward(Cpu, const PoolingBackward<T>& args) {
  const T inverse_length = static_cast<T>(1.0 / static_cast<double>(args.length));
  for_row_chunks(args.batch * args.length, args.columns, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t b = row / args.length;
      const auto t = static_cast<std::int32_t>(row % args.length);
      const T* dy = args.dy + b * args.columns;
      const std::int32_t* argmax = args.argmax == nullptr ? nullptr : args.argmax + b * args.columns;
      T* dx = args.dx + row * args.columns;
      if (args.accumulate_dx) {
        backward_row<true>(dy, argmax, t, inverse_length, args.columns, dx);
      } else {
        backward_row<false>(dy, argmax, t, inverse_length, args.columns, dx);
      }
    }
  });
}

#define VOCA_INSTANTIATE(T)                                     \
  template void pooling_forward(Cpu, const PoolingForward<T>&); \
  template void pooling_backward(Cpu, const PoolingBackward<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
