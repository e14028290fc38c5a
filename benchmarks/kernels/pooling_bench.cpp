#include "kernels/pooling.h"

#include "benchmarks/kernels/support/roof.h"

namespace voca::kernels::benchmarks {
namespace {

void pooling_forward(benchmark::State& state) {
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t columns = state.range(2);
  const auto x = numbers(batch * length * columns);
  std::vector<float> y(static_cast<std::size_t>(batch * columns));
  std::vector<std::int32_t> argmax(y.size());
  std::int32_t* saved = state.range(3) != 0 ? argmax.data() : nullptr;
  for (auto _ : state) pooling_forward<float>(Cpu{}, {batch, length, columns, x.data(), y.data(), saved});
  report(state, 4.0 * static_cast<double>(x.size()), 0);
}

/// Overwrites dx.
void pooling_backward(benchmark::State& state) {
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t columns = state.range(2);
  const auto dy = numbers(batch * columns);
  const std::vector<std::int32_t> argmax(dy.size(), 3);
  std::vector<float> dx(static_cast<std::size_t>(batch * length * columns));
  const std::int32_t* saved = state.range(3) != 0 ? argmax.data() : nullptr;
  for (auto _ : state) {
    pooling_backward<float>(Cpu{}, {batch, length, columns, dy.data(), saved, dx.data(), false});
  }
  report(state, 4.0 * static_cast<double>(dx.size()), 0);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"batch", "length", "columns", "max"})->UseRealTime();
  for (const std::int64_t maximum : {0, 1})
    bench->Args({16, 64, 256, maximum})->Args({64, 256, 768, maximum});
}
BENCHMARK(pooling_forward)->Apply(shapes);
BENCHMARK(pooling_backward)->Apply(shapes);

}  // namespace
}  // namespace voca::kernels::benchmarks
