#include "kernels/gemm.h"

#include <algorithm>

#include "kernels/cpu/blas.h"
#include "kernels/cpu/parallel.h"

namespace voca::kernels {

using namespace cpu;

namespace {

// Size of the tiles of C; the last tile of a row or column may be smaller. A tile is one BLAS call on one
// thread.
struct Tiles {
  std::int64_t rows;
  std::int64_t columns;
};

// `length` divided into `parts` pieces, rounded up to a multiple of 64.
std::int64_t piece(std::int64_t length, std::int64_t parts) {
  return divide_up(divide_up(length, parts), 64) * 64;
}

// Larger tiles spend less time on packing; more tiles allow more threads. Measured with OpenBLAS 0.3.21
// (benchmarks/kernels/gemm_bench.cpp): 512 × 1024 keeps 97 % of the rate of one undivided call. A transposed
// A packs slowly and prefers smaller tiles.
Tiles tiles_of(std::int64_t m, std::int64_t n, std::int64_t k, Transpose transpose_a) {
  constexpr std::int64_t kSmallest = 64'000'000;  // minimum FLOPs per thread
  const bool transposed = transpose_a == Transpose::kYes;
  if (2 * m * n * k < 2 * kSmallest) return {m, n};
  std::int64_t down = divide_up(m, transposed ? 256 : 512);
  const std::int64_t across = divide_up(n, transposed ? 256 : 1024);
  // With an odd number of tiles, one of two threads would be idle at the end.
  if (down * across % 2 == 1 && m >= 128) ++down;
  return {piece(m, down), piece(n, across)};
}

template <typename T>
Gemm<T> tile_of(const Gemm<T>& args, std::int64_t row, std::int64_t rows, std::int64_t column,
                std::int64_t columns) {
  Gemm<T> tile = args;
  tile.m = rows;
  tile.n = columns;
  tile.a += args.transpose_a == Transpose::kYes ? row : row * args.lda;
  tile.b += args.transpose_b == Transpose::kYes ? column * args.ldb : column;
  if (args.add_bias) tile.bias += column;
  tile.c += row * args.ldc + column;
  return tile;
}

// One BLAS call. Starts from bias + beta · C if there is a bias.
template <typename T>
void one_call(const Gemm<T>& args) {
  if (!args.add_bias) return blas_gemm(args);
  for (std::int64_t i = 0; i < args.m; ++i) {
    T* const row = args.c + i * args.ldc;
    if (args.beta == 0) {
      std::copy_n(args.bias, args.n, row);
      continue;
    }
    const auto beta = static_cast<T>(args.beta);
    for (std::int64_t j = 0; j < args.n; ++j) row[j] = args.bias[j] + beta * row[j];
  }
  Gemm<T> rest = args;
  rest.beta = 1;
  blas_gemm(rest);
}

}  // namespace

template <typename T>
void gemm(Cpu, const Gemm<T>& args) {
  if (args.m <= 0 || args.n <= 0) return;
  if (args.batch != 1) {
    return parallel_for(args.batch, [&](std::int64_t i) {
      Gemm<T> one = args;
      one.a += i * args.stride_a;
      one.b += i * args.stride_b;
      one.c += i * args.stride_c;
      one_call(one);
    });
  }
  const Tiles tiles = tiles_of(args.m, args.n, args.k, args.transpose_a);
  const std::int64_t across = divide_up(args.n, tiles.columns);
  parallel_for(divide_up(args.m, tiles.rows) * across, [&](std::int64_t index) {
    const std::int64_t row = index / across * tiles.rows;
    const std::int64_t column = index % across * tiles.columns;
    one_call(tile_of(args, row, std::min(tiles.rows, args.m - row), column,
                     std::min(tiles.columns, args.n - column)));
  });
}

#define VOCA_INSTANTIATE(T) template void gemm(Cpu, const Gemm<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
