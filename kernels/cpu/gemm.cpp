#include "kernels/gemm.h"

#include <algorithm>

#include "kernels/cpu/blas.h"
#include "kernels/cpu/parallel.h"

namespace voca::kernels::cpu {

namespace {

struct Tiles {
  std::int64_t rows;
  std::int64_t columns;
};

// A tile is one BLAS call and one thread's work.
Tiles tiles_of(std::int64_t m, std::int64_t n, std::int64_t k) {
  if (2 * m * n * k < 1'000'000) return {m, n};
  Tiles tiles{std::min<std::int64_t>(m, 256), std::min<std::int64_t>(n, 512)};
  while (divide_up(m, tiles.rows) * divide_up(n, tiles.columns) < 8 &&
         tiles.rows * tiles.columns > 64 * 128) {
    if (tiles.rows >= tiles.columns) {
      tiles.rows = divide_up(tiles.rows, 2);
    } else {
      tiles.columns = divide_up(tiles.columns, 2);
    }
  }
  return tiles;
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
  const Tiles tiles = tiles_of(args.m, args.n, args.k);
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
