#include "kernels/attention.h"

#include "benchmarks/kernels/support/roof.h"
#include "kernels/softmax.h"

namespace voca::kernels::benchmarks {
namespace {

Dropout dropout_of(std::int64_t percent) {
  return {.seed = 1, .threshold = dropout_threshold(static_cast<double>(percent) / 100)};
}

// Self-attention on slices of one packed projection, as the encoder calls it. Arguments: B, N, T, d, dropout
// %.
struct Problem {
  explicit Problem(benchmark::State& state)
      : shape{state.range(0), state.range(1), state.range(3), state.range(2), state.range(2), 0, 0, 0},
        dropout(dropout_of(state.range(4))) {
    width = shape.heads * shape.head_size;
    shape.query_stride = shape.key_stride = shape.value_stride = 3 * width;
    rows = shape.batch * shape.query_length;
    qkv = numbers(rows * 3 * width);
    out.resize(static_cast<std::size_t>(rows * width));
    logsumexp.resize(static_cast<std::size_t>(rows * shape.heads));
  }
  void forward() {
    AlignedScratch scratch(scratch_bytes(Cpu{}, AttentionForward<float>{.shape = shape}));
    forward(scratch);
  }
  void forward(AlignedScratch& scratch) {
    attention_forward<float>(Cpu{}, {shape, qkv.data(), qkv.data() + width, qkv.data() + 2 * width, dropout,
                                     out.data(), logsumexp.data(), scratch.data()});
  }
  // FLOPs of one GEMM over all heads.
  [[nodiscard]] double product_flops() const {
    return 2.0 * static_cast<double>(rows * shape.key_length) * static_cast<double>(width);
  }

  AttentionShape shape;
  Dropout dropout;
  std::int64_t width = 0;
  std::int64_t rows = 0;
  std::vector<float> qkv;
  std::vector<float> out;
  std::vector<float> logsumexp;
};

void attention_forward(benchmark::State& state) {
  Problem problem(state);
  AlignedScratch scratch(scratch_bytes(Cpu{}, AttentionForward<float>{.shape = problem.shape}));
  for (auto _ : state) problem.forward(scratch);
  report(state, 0, 2 * problem.product_flops());
}

void attention_backward(benchmark::State& state) {
  Problem problem(state);
  problem.forward();
  const auto dout = numbers(problem.rows * problem.width, 4);
  std::vector<float> gradient(problem.qkv.size());
  AlignedScratch scratch(scratch_bytes(Cpu{}, AttentionBackward<float>{.shape = problem.shape}));
  const float* qkv = problem.qkv.data();
  const std::int64_t width = problem.width;
  for (auto _ : state) {
    attention_backward<float>(
        Cpu{}, {problem.shape, dout.data(), qkv, qkv + width, qkv + 2 * width, problem.out.data(),
                problem.logsumexp.data(), problem.dropout, gradient.data(), gradient.data() + width,
                gradient.data() + 2 * width, scratch.data()});
  }
  report(state, 0, 5 * problem.product_flops());
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"B", "N", "T", "d", "dropout%"})->UseRealTime();
  for (const std::int64_t p : {0, 10})
    bench->Args({16, 4, 128, 64, p})->Args({16, 8, 256, 96, p})->Args({16, 16, 320, 64, p});
}
BENCHMARK(attention_forward)->Apply(shapes);
BENCHMARK(attention_backward)->Apply(shapes);

void softmax_forward(benchmark::State& state) {
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const auto scores = numbers(batch * length * length);
  std::vector<float> p(scores.size());
  std::vector<float> dropped(scores.size());
  for (auto _ : state) {
    softmax_forward<float>(
        Cpu{}, {batch, length, length, 0.125, scores.data(), dropout_of(10), p.data(), dropped.data()});
  }
  report(state, 12.0 * static_cast<double>(scores.size()), 0);
}

void softmax_backward(benchmark::State& state) {
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const auto p = numbers(batch * length * length);
  const auto ddropped = numbers(batch * length * length, 2);
  std::vector<float> dscores(p.size());
  for (auto _ : state) {
    softmax_backward<float>(
        Cpu{}, {batch, length, length, 0.125, ddropped.data(), p.data(), dropout_of(10), dscores.data()});
  }
  report(state, 12.0 * static_cast<double>(p.size()), 0);
}
BENCHMARK(softmax_forward)->UseRealTime()->Args({64, 128});
BENCHMARK(softmax_backward)->UseRealTime()->Args({64, 128});

}  // namespace
}  // namespace voca::kernels::benchmarks
