#include "kernels/gemm.h"

#include <algorithm>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/serial_gemm.h"

namespace voca::kernels {

using namespace cpu;

namespace {

/// Division of C into tiles, one per thread. The last tile of a row or column may be smaller.
struct Tiles {
  std::int64_t rows;
  std::int64_t columns;
};

/// As many tiles as threads whose work pays for waking them, cut so that the least has to be packed. No bit
/// depends on it (serial_gemm()).
Tiles tiles_of(std::int64_t m, std::int64_t n, std::int64_t k) {
  constexpr std::int64_t kOperations = 2'000'000;  // of a thread, at least: about 12 µs
  const std::int64_t count = std::clamp<std::int64_t>(2 * m * n * k / kOperations, 1, threads());
  std::int64_t best = 1;  // tiles across
  for (std::int64_t across = 1; across <= count; ++across) {
    if (count % across == 0 && m * across / count + n / across < m * best / count + n / best) best = across;
  }
  return {divide_up(m, count / best), divide_up(divide_up(n, best), 64) * 64};
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

}  // namespace

template <typename T>
std::size_t scratch_bytes(Cpu, const Gemm<T>& args) {
  return serial_gemm_bytes(args) * static_cast<std::size_t>(threads());
}

template <typename T>
void gemm(Cpu, const Gemm<T>& args) {
  if (args.m <= 0 || args.n <= 0) return;
  const auto compute = [&](const Gemm<T>& part, int thread) {
    serial_gemm(part, static_cast<std::byte*>(args.scratch) +
                          serial_gemm_bytes(args) * static_cast<std::size_t>(thread));
  };
  if (args.batch != 1) {
    return parallel_for(args.batch, [&](std::int64_t i, int thread) {
      Gemm<T> one = args;
      one.a += i * args.stride_a;
      one.b += i * args.stride_b;
      one.c += i * args.stride_c;
      compute(one, thread);
    });
  }
  const Tiles tiles = tiles_of(args.m, args.n, args.k);
  const std::int64_t across = divide_up(args.n, tiles.columns);
  parallel_for(divide_up(args.m, tiles.rows) * across, [&](std::int64_t index, int thread) {
    const std::int64_t row = index / across * tiles.rows;
    const std::int64_t column = index % across * tiles.columns;
    compute(tile_of(args, row, std::min(tiles.rows, args.m - row), column,
                    std::min(tiles.columns, args.n - column)),
            thread);
  });
}

#define VOCA_INSTANTIATE(T)                                \
  template std::size_t scratch_bytes(Cpu, const Gemm<T>&); \
  template void gemm(Cpu, const Gemm<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
