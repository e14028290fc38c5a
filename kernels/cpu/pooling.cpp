#include "kernels/pooling.h"

#include <algorithm>

namespace voca::kernels::cpu {

namespace {

/// Columns one task reduces: its running sums and maxima stay in the first-level cache.
constexpr std::int64_t kColumnBlock = 256;

template <typename T>
void pool_mean(const T* x, std::int64_t length, std::int64_t stride, std::int64_t columns, T* y) {
  double sum[kColumnBlock] = {};
  for (std::int64_t t = 0; t < length; ++t) {
    const T* row = x + t * stride;
    for (std::int64_t h = 0; h < columns; ++h) sum[h] += static_cast<double>(row[h]);
  }
  const double inverse_length = 1.0 / static_cast<double>(length);
  for (std::int64_t h = 0; h < columns; ++h) y[h] = static_cast<T>(sum[h] * inverse_length);
}

template <typename T>
void pool_mean_max(const T* x, std::int64_t length, std::int64_t stride, std::int64_t columns, T* y,
                   std::int32_t* argmax) {
  double sum[kColumnBlock];
  T maximum[kColumnBlock];
  std::int32_t first[kColumnBlock];
  for (std::int64_t h = 0; h < columns; ++h) {
    sum[h] = static_cast<double>(x[h]);
    maximum[h] = x[h];
    first[h] = 0;
  }
  for (std::int64_t t = 1; t < length; ++t) {
    const T* row = x + t * stride;
    for (std::int64_t h = 0; h < columns; ++h) {
      const T value = row[h];
      // The first NaN wins and stays.
      const bool take = (value > maximum[h]) | ((value != value) & (maximum[h] == maximum[h]));
      sum[h] += static_cast<double>(value);
      maximum[h] = take ? value : maximum[h];
      first[h] = take ? static_cast<std::int32_t>(t) : first[h];
    }
  }
  const double inverse_length = 1.0 / static_cast<double>(length);
  for (std::int64_t h = 0; h < columns; ++h) {
    y[h] = static_cast<T>(sum[h] * inverse_length + static_cast<double>(maximum[h]));
    argmax[h] = first[h];
  }
}

}  // namespace

template <typename T>
void pooling_forward(const PoolingForward<T>& args) {
  const std::int64_t blocks = divide_up(args.columns, kColumnBlock);
  for (std::int64_t task = 0; task < args.batch * blocks; ++task) {
    const std::int64_t b = task / blocks;
    const std::int64_t h = task % blocks * kColumnBlock;
    const std::int64_t columns = std::min(kColumnBlock, args.columns - h);
    const T* x = args.x + b * args.length * args.columns + h;
    T* y = args.y + b * args.columns + h;
    if (args.argmax == nullptr) {
      pool_mean(x, args.length, args.columns, columns, y);
    } else {
      pool_mean_max(x, args.length, args.columns, columns, y, args.argmax + b * args.columns + h);
    }
  }
}

template <typename T>
void pooling_backward(const PoolingBackward<T>& args) {
  const T inverse_length = static_cast<T>(1.0 / static_cast<double>(args.length));
  for (std::int64_t row = 0; row < args.batch * args.length; ++row) {
    const std::int64_t b = row / args.length;
    const auto t = static_cast<std::int32_t>(row % args.length);
    const T* dy = args.dy + b * args.columns;
    const std::int32_t* argmax = args.argmax == nullptr ? nullptr : args.argmax + b * args.columns;
    T* dx = args.dx + row * args.columns;
    if (!args.accumulate_dx) std::fill_n(dx, args.columns, T{0});
    if (argmax == nullptr) {
      for (std::int64_t h = 0; h < args.columns; ++h) dx[h] += dy[h] * inverse_length;
    } else {
      for (std::int64_t h = 0; h < args.columns; ++h) {
        dx[h] += dy[h] * inverse_length + (argmax[h] == t ? dy[h] : T{0});
      }
    }
  }
}

template void pooling_forward(const PoolingForward<float>& args);
template void pooling_forward(const PoolingForward<double>& args);
template void pooling_backward(const PoolingBackward<float>& args);
template void pooling_backward(const PoolingBackward<double>& args);

}  // namespace voca::kernels::cpu
