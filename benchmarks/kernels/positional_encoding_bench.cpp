#include "kernels/positional_encoding.h"

#include "benchmarks/kernels/support/roof.h"

namespace voca::kernels::benchmarks {
namespace {

/// Reads x and writes y; the encoding stays in cache.
void positional_encoding_forward(benchmark::State& state) {
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t columns = state.range(2);
  const auto x = numbers(batch * length * columns);
  const auto encoding = numbers(length * columns, 2);
  std::vector<float> y(x.size());
  for (auto _ : state) {
    positional_encoding_forward<float>(Cpu{}, {batch, length, columns, x.data(), encoding.data(), y.data()});
  }
  report(state, 8.0 * static_cast<double>(x.size()), 0);
}

/// Reads dy; its sum over the batch stays in cache.
void positional_encoding_backward(benchmark::State& state) {
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t columns = state.range(2);
  const auto dy = numbers(batch * length * columns);
  std::vector<float> dencoding(static_cast<std::size_t>(length * columns));
  for (auto _ : state) {
    positional_encoding_backward<float>(Cpu{}, {batch, length, columns, dy.data(), dencoding.data()});
  }
  report(state, 4.0 * static_cast<double>(dy.size()), 0);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"batch", "length", "columns"})->Args({16, 128, 256})->Args({64, 256, 768})->UseRealTime();
}
BENCHMARK(positional_encoding_forward)->Apply(shapes);
BENCHMARK(positional_encoding_backward)->Apply(shapes);

}  // namespace
}  // namespace voca::kernels::benchmarks
