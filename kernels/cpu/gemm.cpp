#include "kernels/gemm.h"

#include <algorithm>

#include "kernels/cpu/blas.h"
#include "kernels/cpu/parallel.h"

namespace voca::kernels::cpu {

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
  tile.c += row * args.ldc + column;
  return tile;
}

}  // namespace

template <typename T>
void gemm_with_bias(const Gemm<T>& args, const T* bias) {
  if (args.m <= 0 || args.n <= 0) return;
  const Tiles tiles = tiles_of(args.m, args.n, args.k, args.transpose_a);
  const std::int64_t across = divide_up(args.n, tiles.columns);
  parallel_for(divide_up(args.m, tiles.rows) * across, [&](std::int64_t index) {
    const std::int64_t row = index / across * tiles.rows;
    const std::int64_t column = index % across * tiles.columns;
    Gemm<T> tile = tile_of(args, row, std::min(tiles.rows, args.m - row), column,
                           std::min(tiles.columns, args.n - column));
    if (bias != nullptr) {
      for (std::int64_t i = 0; i < tile.m; ++i) std::copy_n(bias + column, tile.n, tile.c + i * tile.ldc);
      tile.beta = 1;
    }
    blas_gemm(tile);
  });
}

template <typename T>
void gemm(const Gemm<T>& args) {
  gemm_with_bias<T>(args, nullptr);
}

template <typename T>
void batched_gemm(const BatchedGemm<T>& args) {
  parallel_for(args.batch, [&](std::int64_t i) {
    Gemm<T> one = args.one;
    one.a += i * args.stride_a;
    one.b += i * args.stride_b;
    one.c += i * args.stride_c;
    if (one.m > 0 && one.n > 0) blas_gemm(one);
  });
}

template void gemm_with_bias(const Gemm<float>&, const float*);
template void gemm_with_bias(const Gemm<double>&, const double*);
template void gemm(const Gemm<float>&);
template void gemm(const Gemm<double>&);
template void batched_gemm(const BatchedGemm<float>&);
template void batched_gemm(const BatchedGemm<double>&);

}  // namespace voca::kernels::cpu
