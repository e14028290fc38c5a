#include "kernels/gradient_norm.h"

#include "benchmarks/kernels/support/roof.h"

namespace voca::kernels::benchmarks {
namespace {

void gradient_norm(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  const auto gradient = numbers(n);
  float norm = 0;
  AlignedScratch scratch(scratch_bytes(Cpu{}, GradientNorm<float>{.elements = n}));
  for (auto _ : state) {
    gradient_norm<float>(Cpu{}, {n, gradient.data(), &norm, scratch.data()});
    benchmark::DoNotOptimize(norm);
  }
  report(state, 4.0 * static_cast<double>(n), 0);
}
BENCHMARK(gradient_norm)->ArgName("parameters")->Arg(1 << 20)->Arg(32589569)->UseRealTime();

}  // namespace
}  // namespace voca::kernels::benchmarks
