#include "kernels/elementwise.h"

#include "benchmarks/kernels/support/roof.h"

namespace voca::kernels::benchmarks {
namespace {

void weighted_sum(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  const auto a = numbers(n);
  const auto b = numbers(n, 2);
  std::vector<float> out(a.size());
  for (auto _ : state) weighted_sum<float>(Cpu{}, {n, 0.5, a.data(), 0.5, b.data(), out.data()});
  report(state, 12.0 * static_cast<double>(n), 0);
}

void fill(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  std::vector<float> out(static_cast<std::size_t>(n));
  for (auto _ : state) {
    fill(Cpu{}, n, 0.0F, out.data());
    benchmark::ClobberMemory();
  }
  report(state, 4.0 * static_cast<double>(n), 0);
}

void cast_to_double(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  const auto from = numbers(n);
  std::vector<double> to(from.size());
  for (auto _ : state) cast(Cpu{}, n, from.data(), to.data());
  report(state, 12.0 * static_cast<double>(n), 0);
}

// Activations of one stream in the step benchmark (16 × 128 × 256), and in the base recipe (64 × 256 × 768).
void sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgName("elements")->Arg(16 * 128 * 256)->Arg(64 * 256 * 768)->UseRealTime();
}
BENCHMARK(weighted_sum)->Apply(sizes);
BENCHMARK(fill)->Apply(sizes);
BENCHMARK(cast_to_double)->Apply(sizes);

}  // namespace
}  // namespace voca::kernels::benchmarks
