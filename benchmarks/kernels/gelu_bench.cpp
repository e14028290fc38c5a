#include "kernels/gelu.h"

#include "benchmarks/kernels/support/roof.h"

namespace voca::kernels::benchmarks {
namespace {

Dropout dropout_of(std::int64_t percent) {
  return {.seed = 1, .threshold = dropout_threshold(static_cast<double>(percent) / 100)};
}

void gelu_forward(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const auto x = numbers(rows * columns);
  const auto bias = numbers(columns, 2);
  std::vector<float> y(x.size());
  for (auto _ : state) {
    gelu_forward<float>(Cpu{}, {rows, columns, x.data(), bias.data(), dropout_of(state.range(2)), y.data()});
  }
  report(state, 8.0 * static_cast<double>(rows * columns), 0);
}

void gelu_backward(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const auto x = numbers(rows * columns);
  const auto bias = numbers(columns, 2);
  const auto dy = numbers(rows * columns, 3);
  std::vector<float> dx(x.size());
  std::vector<float> dbias(bias.size());
  AlignedScratch scratch(scratch_bytes(Cpu{}, GeluBackward<float>{.rows = rows, .columns = columns}));
  for (auto _ : state) {
    gelu_backward<float>(Cpu{}, {rows, columns, dy.data(), x.data(), bias.data(), dropout_of(state.range(2)),
                                 dx.data(), dbias.data(), scratch.data()});
  }
  report(state, 12.0 * static_cast<double>(rows * columns), 0);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "columns", "dropout%"})->UseRealTime();
  for (const std::int64_t p : {0, 10}) bench->Args({2048, 1024, p})->Args({16384, 3072, p});
}
BENCHMARK(gelu_forward)->Apply(shapes);
BENCHMARK(gelu_backward)->Apply(shapes);

}  // namespace
}  // namespace voca::kernels::benchmarks
