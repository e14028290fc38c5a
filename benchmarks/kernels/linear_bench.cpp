#include "benchmarks/kernels/support/roof.h"
#include "engine/core/arena.h"
#include "engine/ops/ops.h"

// Linear layers of the network with their bias; gemm_bench.cpp has the GEMMs alone.

namespace voca::kernels::benchmarks {
namespace {

engine::Tensor tensor(std::vector<float>& data, const engine::Shape& shape) {
  return {data.data(), shape, engine::DType::kF32, engine::DeviceKind::kCpu, "operand"};
}

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

  engine::Tensor x_view() { return tensor(x, {rows, in}); }
  engine::Tensor weight_view() { return tensor(weight, {out, in}); }

  std::int64_t rows;
  std::int64_t in;
  std::int64_t out;
  std::vector<float> x;
  std::vector<float> weight;
  std::vector<float> bias;
};

void linear_forward(benchmark::State& state) {
  Problem problem(state);
  engine::Arena arena(nullptr, 0, engine::DeviceKind::kCpu);
  engine::Context context{arena};
  std::vector<float> y(static_cast<std::size_t>(problem.rows * problem.out));
  for (auto _ : state) {
    engine::ops::linear(context, problem.x_view(), problem.weight_view(), tensor(problem.bias, {problem.out}),
                        tensor(y, {problem.rows, problem.out}));
  }
  report(state, 0, problem.flops());
}

void linear_backward(benchmark::State& state) {
  Problem problem(state);
  engine::Arena arena(nullptr, 0, engine::DeviceKind::kCpu);
  engine::Context context{arena};
  auto dy = numbers(problem.rows * problem.out, 4);
  std::vector<float> dx(problem.x.size());
  std::vector<float> dweight(problem.weight.size());
  std::vector<float> dbias(problem.bias.size());
  for (auto _ : state) {
    engine::ops::linear_backward(context, {.dy = tensor(dy, {problem.rows, problem.out}),
                                           .x = problem.x_view(),
                                           .weight = problem.weight_view(),
                                           .dx = tensor(dx, {problem.rows, problem.in}),
                                           .dweight = tensor(dweight, {problem.out, problem.in}),
                                           .dbias = tensor(dbias, {problem.out})});
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
