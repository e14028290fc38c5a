#include "kernels/gemm.h"

#include <cblas.h>

#include "benchmarks/kernels/support/roof.h"

// GEMMs of the network: ours (tiles distributed over threads, each a single-threaded BLAS call), and those of
// the BLAS with its own threads.

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

template <typename F>
void run_gemm(benchmark::State& state, F run) {
  Gemm<float> args = gemm_of_layer(state.range(0), state.range(1), state.range(2), state.range(3));
  const auto a = numbers(args.m * args.k, 1);
  const auto b = numbers(args.k * args.n, 2);
  std::vector<float> c(static_cast<std::size_t>(args.m * args.n));
  args.a = a.data();
  args.b = b.data();
  args.c = c.data();
  for (auto _ : state) run(args);
  report(state, 0,
         2.0 * static_cast<double>(args.m) * static_cast<double>(args.n) * static_cast<double>(args.k));
}

void gemm(benchmark::State& state) {
  run_gemm(state, [](const Gemm<float>& args) { gemm(Cpu{}, args); });
}

void gemm_of_blas(benchmark::State& state) {
  openblas_set_num_threads(cpu::threads());
  const auto transpose = [](Transpose t) { return t == Transpose::kYes ? CblasTrans : CblasNoTrans; };
  run_gemm(state, [&](const Gemm<float>& g) {
    cblas_sgemm(CblasRowMajor, transpose(g.transpose_a), transpose(g.transpose_b), static_cast<blasint>(g.m),
                static_cast<blasint>(g.n), static_cast<blasint>(g.k), static_cast<float>(g.alpha), g.a,
                static_cast<blasint>(g.lda), g.b, static_cast<blasint>(g.ldb), static_cast<float>(g.beta),
                g.c, static_cast<blasint>(g.ldc));
  });
  openblas_set_num_threads(1);
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
BENCHMARK(gemm_of_blas)->Apply(shapes);

}  // namespace
}  // namespace voca::kernels::benchmarks
