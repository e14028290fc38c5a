#include "kernels/bias_gradient.h"

#include <algorithm>

#include "kernels/cpu/parallel.h"

namespace voca::kernels {

using namespace cpu;

namespace {

constexpr std::int64_t kColumns = 64;  // columns per task: whole cache lines, sums fit in registers
constexpr std::int64_t kRows = 256;    // rows per partial sum

// Adds the sums over rows [0, rows) of kWidth columns to `sum`.
template <std::int64_t kWidth, typename T>
void add_rows(std::int64_t rows, std::int64_t stride, const T* dy, T* sum) {
  T lanes[kWidth] = {};
  for (std::int64_t i = 0; i < rows; ++i) {
#pragma omp simd
    for (std::int64_t j = 0; j < kWidth; ++j) lanes[j] += dy[i * stride + j];
  }
  for (std::int64_t j = 0; j < kWidth; ++j) sum[j] += lanes[j];
}

}  // namespace

template <typename T>
void bias_gradient(Cpu, const BiasGradient<T>& args) {
  const auto sum_columns = [&](std::int64_t block) {
    const std::int64_t begin = block * kColumns;
    const std::int64_t width = std::min(kColumns, args.columns - begin);
    T total[kColumns] = {};
    for (std::int64_t row = 0; row < args.rows; row += kRows) {
      const std::int64_t rows = std::min(kRows, args.rows - row);
      const T* dy = args.dy + row * args.columns + begin;
      if (width == kColumns) {
        add_rows<kColumns>(rows, args.columns, dy, total);
      } else {
        for (std::int64_t j = 0; j < width; ++j) add_rows<1>(rows, args.columns, dy + j, total + j);
      }
    }
    for (std::int64_t j = 0; j < width; ++j) args.dbias[begin + j] += total[j];
  };
  const std::int64_t blocks = divide_up(args.columns, kColumns);
  if (args.rows * args.columns < 16384) {
    for (std::int64_t block = 0; block < blocks; ++block) sum_columns(block);
  } else {
    parallel_for(blocks, sum_columns);
  }
}

#define VOCA_INSTANTIATE(T) template void bias_gradient(Cpu, const BiasGradient<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
