#include "kernels/layernorm.h"

#include "benchmarks/kernels/support/roof.h"
#include "kernels/bias_gradient.h"

namespace voca::kernels::benchmarks {
namespace {

Dropout dropout_of(std::int64_t percent) {
  return {.seed = 1, .threshold = dropout_threshold(static_cast<double>(percent) / 100)};
}

// Bias, dropout, residual and layernorm, fused as the encoder uses them.
void layernorm_forward(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const auto x = numbers(rows * columns);
  const auto residual = numbers(rows * columns, 2);
  const auto parameters = numbers(columns, 3);
  std::vector<float> z(x.size());
  std::vector<float> y(x.size());
  std::vector<float> mean(static_cast<std::size_t>(rows));
  std::vector<float> rstd(static_cast<std::size_t>(rows));
  const float* p = parameters.data();
  for (auto _ : state) {
    layernorm_forward<float>(Cpu{}, {.rows = rows,
                                     .columns = columns,
                                     .x = x.data(),
                                     .bias = p,
                                     .residual = residual.data(),
                                     .gamma = p,
                                     .beta = p,
                                     .input_dropout = dropout_of(state.range(2)),
                                     .z = z.data(),
                                     .mean = mean.data(),
                                     .rstd = rstd.data(),
                                     .y = y.data()});
  }
  report(state, 16.0 * static_cast<double>(rows * columns), 0);
}

void layernorm_backward(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const auto dy = numbers(rows * columns);
  const auto z = numbers(rows * columns, 2);
  const auto gamma = numbers(columns, 3);
  const std::vector<float> mean(static_cast<std::size_t>(rows), 0.1F);
  const std::vector<float> rstd(static_cast<std::size_t>(rows), 0.9F);
  std::vector<float> dx(dy.size());
  std::vector<float> dresidual(dy.size());
  std::vector<float> sums(3 * gamma.size());
  AlignedScratch scratch(scratch_bytes(Cpu{}, LayernormBackward<float>{.rows = rows, .columns = columns}));
  for (auto _ : state) {
    layernorm_backward<float>(Cpu{}, {.rows = rows,
                                      .columns = columns,
                                      .dy = dy.data(),
                                      .z = z.data(),
                                      .mean = mean.data(),
                                      .rstd = rstd.data(),
                                      .gamma = gamma.data(),
                                      .input_dropout = dropout_of(state.range(2)),
                                      .dx = dx.data(),
                                      .dresidual = dresidual.data(),
                                      .dgamma = sums.data(),
                                      .dbeta = sums.data() + columns,
                                      .dbias = sums.data() + 2 * columns,
                                      .scratch = scratch.data()});
  }
  report(state, 16.0 * static_cast<double>(rows * columns), 0);
}

void bias_gradient(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const auto dy = numbers(rows * columns);
  std::vector<float> dbias(static_cast<std::size_t>(columns));
  for (auto _ : state) bias_gradient<float>(Cpu{}, {rows, columns, dy.data(), dbias.data()});
  report(state, 4.0 * static_cast<double>(rows * columns), 0);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "columns", "dropout%"})->UseRealTime();
  for (const std::int64_t p : {0, 10}) bench->Args({2048, 256, p})->Args({16384, 768, p});
}
BENCHMARK(layernorm_forward)->Apply(shapes);
BENCHMARK(layernorm_backward)->Apply(shapes);
BENCHMARK(bias_gradient)->UseRealTime()->Args({2048, 768})->Args({16384, 2304});

}  // namespace
}  // namespace voca::kernels::benchmarks
