#include "kernels/linear.h"

#include "benchmarks/kernels/support/roof.h"

// Linear layers of the network with their bias; gemm_bench.cpp has the GEMMs alone.

namespace voca::kernels::benchmarks {
namespace {

struct Problem {
  explicit Problem(const benchmark::State& state)
      : rows(state.range(0)),
        in(state.range(1)),
        out(state.range(2)),
        x(numbers(rows * in)),
        weight(numbers(out * in, 2)),
        bias(numbers(out, 3)) {}
  // FLOPs of one GEMM.
  [[nodiscard]] double flops() const {
    return 2.0 * static_cast<double>(rows * in) * static_cast<double>(out);
  }

  std::int64_t rows;
  std::int64_t in;
  std::int64_t out;
  std::vector<float> x;
  std::vector<float> weight;
  std::vector<float> bias;
};

void linear_forward(benchmark::State& state) {
  const Problem problem(state);
  std::vector<float> y(static_cast<std::size_t>(problem.rows * problem.out));
  for (auto _ : state) {
    cpu::linear_forward<float>({problem.rows, problem.in, problem.out, problem.x.data(),
                                problem.weight.data(), problem.bias.data(), y.data()});
  }
  report(state, 0, problem.flops());
}

void linear_backward(benchmark::State& state) {
  const Problem problem(state);
  const auto dy = numbers(problem.rows * problem.out, 4);
  std::vector<float> dx(problem.x.size());
  std::vector<float> dweight(problem.weight.size());
  std::vector<float> dbias(problem.bias.size());
  for (auto _ : state) {
    cpu::linear_backward<float>({.rows = problem.rows,
                                 .in_features = problem.in,
                                 .out_features = problem.out,
                                 .dy = dy.data(),
                                 .x = problem.x.data(),
                                 .weight = problem.weight.data(),
                                 .dx = dx.data(),
                                 .dweight = dweight.data(),
                                 .dbias = dbias.data()});
  }
  report(state, 0, 2 * problem.flops());
}

// Packed projection of the step benchmark, and of the base recipe.
void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "in", "out"})->Args({2048, 256, 768})->Args({16384, 768, 2304})->UseRealTime();
}
BENCHMARK(linear_forward)->Apply(shapes);
BENCHMARK(linear_backward)->Apply(shapes);

}  // namespace
}  // namespace voca::kernels::benchmarks
