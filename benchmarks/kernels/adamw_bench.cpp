#include "kernels/adamw.h"

#include "benchmarks/kernels/support/roof.h"

namespace voca::kernels::benchmarks {
namespace {

/// Reads gradient, master and both moments; writes the last three.
void adamw(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  const auto gradient = numbers(n);
  auto master = numbers(n, 2);
  std::vector<float> exp_avg(master.size());
  std::vector<float> exp_avg_sq(master.size());
  const float norm = 3;
  AdamW<float> args;
  args.elements = n;
  OptimizerState optimizer{.lr = 1e-3};
  args.state = &optimizer;
  args.options.weight_decay = 1e-4;
  args.max_norm = 1;
  args.norm = &norm;
  args.gradient = gradient.data();
  args.master = master.data();
  args.exp_avg = exp_avg.data();
  args.exp_avg_sq = exp_avg_sq.data();
  for (auto _ : state) adamw(Cpu{}, args);
  report(state, 28.0 * static_cast<double>(n), 0);
}
// A small model, and that of the base recipe.
BENCHMARK(adamw)->ArgName("parameters")->Arg(1 << 20)->Arg(32589569)->UseRealTime();

}  // namespace
}  // namespace voca::kernels::benchmarks
