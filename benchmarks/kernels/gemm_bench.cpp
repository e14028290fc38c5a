#include "kernels/gemm.h"

#include "benchmarks/kernels/support/roof.h"

// GEMMs of the network, on all threads. benchmarks/gemm_rivals_bench.cpp compares one core with libraries.

namespace voca::kernels::benchmarks {
namespace {

enum Kind : std::int64_t { kForward, kInputGradient, kWeightGradient };

// GEMM of a linear layer, rows × in → out.
Gemm<float> gemm_of_layer(std::int64_t kind, std::int64_t rows, std::int64_t in, std::int64_t out) {
  switch (kind) {
    case kForward:
      return {.transpose_b = Transpose::kYes, .m = rows, .n = out, .k = in, .lda = in, .ldb = in, .ldc = out};
    case kInputGradient:
      return {.m = rows, .n = in, .k = out, .lda = out, .ldb = in, .ldc = in};
    default:
      return {.transpose_a = Transpose::kYes,
              .m = out,
              .n = in,
              .k = rows,
              .lda = out,
              .ldb = in,
              .beta = 1,
              .ldc = in};
  }
}

void gemm(benchmark::State& state) {
  Gemm<float> args = gemm_of_layer(state.range(0), state.range(1), state.range(2), state.range(3));
  const auto a = numbers(args.m * args.k, 1);
  const auto b = numbers(args.k * args.n, 2);
  std::vector<float> c(static_cast<std::size_t>(args.m * args.n));
  args.a = a.data();
  args.b = b.data();
  args.c = c.data();
  AlignedScratch scratch(scratch_bytes(Cpu{}, args));
  args.scratch = scratch.data();
  for (auto _ : state) gemm(Cpu{}, args);
  report(state, 0,
         2.0 * static_cast<double>(args.m) * static_cast<double>(args.n) * static_cast<double>(args.k));
}

void shapes(benchmark::internal::Benchmark* bench) {
  const std::int64_t layers[][3] = {{2048, 256, 256},  {2048, 256, 512},   {2048, 256, 768},
                                    {2048, 256, 1024}, {2048, 1024, 256},  {2048, 512, 256},
                                    {16384, 768, 768}, {16384, 768, 3072}, {16, 256, 128}};
  bench->ArgNames({"kind", "rows", "in", "out"})->UseRealTime();
  for (const auto& [rows, in, out] : layers) {
    for (const std::int64_t kind : {kForward, kInputGradient, kWeightGradient})
      bench->Args({kind, rows, in, out});
  }
}
BENCHMARK(gemm)->Apply(shapes);

}  // namespace
}  // namespace voca::kernels::benchmarks
