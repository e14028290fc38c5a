#include "benchmarks/cuda/support/gpu.h"
#include "kernels/attention.h"
#include "kernels/bias_gradient.h"
#include "kernels/gather_frames.h"
#include "kernels/gelu.h"
#include "kernels/gradient_norm.h"
#include "kernels/layernorm.h"
#include "kernels/pooling.h"

// The CUDA kernels in bf16 at the sizes of the Base (B 64, T 256, H 768, N 8) and Large (B 80, T 320, H 1024,
// N 16) recipes, outside the L2 cache. Each benchmark reports the bytes or FLOPs of one call.

namespace voca::kernels::benchmarks {
namespace {

using Number = __nv_bfloat16;
constexpr double kBytes = sizeof(Number);
constexpr std::int64_t kBaseRows = 64 * 256;
constexpr std::int64_t kLargeRows = 80 * 320;

Cuda backend() {
  return {gpu()->compute_stream()};
}

Dropout dropout_of(std::int64_t percent) {
  return {.seed = 1, .threshold = dropout_threshold(static_cast<double>(percent) / 100)};
}

void layernorm_forward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const double bytes = 4 * kBytes * static_cast<double>(rows * columns);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> x(sets, rows * columns);
  const Rotating<Number> residual(sets, rows * columns);
  const Rotating<Number> z(sets, rows * columns);
  const Rotating<Number> y(sets, rows * columns);
  const Rotating<Number> parameters(1, columns);
  const Rotating<float> statistics(2, rows);
  const Number* p = parameters[0];
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    layernorm_forward<Number>(backend(), {.rows = rows,
                                          .columns = columns,
                                          .x = x[i],
                                          .bias = p,
                                          .residual = residual[i],
                                          .gamma = p,
                                          .beta = p,
                                          .input_dropout = dropout_of(state.range(2)),
                                          .z = z[i],
                                          .mean = statistics[0],
                                          .rstd = statistics[1],
                                          .y = y[i]});
  });
}

void layernorm_backward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const double bytes = 4 * kBytes * static_cast<double>(rows * columns);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> dy(sets, rows * columns);
  const Rotating<Number> z(sets, rows * columns);
  const Rotating<Number> dx(sets, rows * columns);
  const Rotating<Number> dresidual(sets, rows * columns);
  const Rotating<Number> parameters(4, columns);
  const Rotating<float> statistics(2, rows);
  const Rotating<char> scratch(1, static_cast<std::int64_t>(scratch_bytes(
                                      Cuda{}, LayernormBackward<Number>{.rows = rows, .columns = columns})));
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    layernorm_backward<Number>(backend(), {.rows = rows,
                                           .columns = columns,
                                           .dy = dy[i],
                                           .z = z[i],
                                           .mean = statistics[0],
                                           .rstd = statistics[1],
                                           .gamma = parameters[0],
                                           .input_dropout = dropout_of(state.range(2)),
                                           .dx = dx[i],
                                           .dresidual = dresidual[i],
                                           .dgamma = parameters[1],
                                           .dbeta = parameters[2],
                                           .dbias = parameters[3],
                                           .scratch = scratch[0]});
  });
}

void gelu_forward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const double bytes = 2 * kBytes * static_cast<double>(rows * columns);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> x(sets, rows * columns);
  const Rotating<Number> y(sets, rows * columns);
  const Rotating<Number> bias(1, columns);
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    gelu_forward<Number>(backend(), {.rows = rows,
                                     .columns = columns,
                                     .x = x[i],
                                     .bias = bias[0],
                                     .dropout = dropout_of(state.range(2)),
                                     .y = y[i]});
  });
}

void gelu_backward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const double bytes = 3 * kBytes * static_cast<double>(rows * columns);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> dy(sets, rows * columns);
  const Rotating<Number> x(sets, rows * columns);
  const Rotating<Number> dx(sets, rows * columns);
  const Rotating<Number> bias(2, columns);
  const Rotating<char> scratch(1, static_cast<std::int64_t>(scratch_bytes(
                                      Cuda{}, GeluBackward<Number>{.rows = rows, .columns = columns})));
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    gelu_backward<Number>(backend(), {.rows = rows,
                                      .columns = columns,
                                      .dy = dy[i],
                                      .x = x[i],
                                      .bias = bias[0],
                                      .dropout = dropout_of(state.range(2)),
                                      .dx = dx[i],
                                      .dbias = bias[1],
                                      .scratch = scratch[0]});
  });
}

// Self-attention on slices of one packed projection, as the encoder calls it.
struct AttentionProblem {
  explicit AttentionProblem(const benchmark::State& state)
      : width(state.range(1) * state.range(3)),
        rows(state.range(0) * state.range(2)),
        dropout(dropout_of(state.range(4))) {
    shape = {.batch = state.range(0),
             .heads = state.range(1),
             .head_size = state.range(3),
             .query_length = state.range(2),
             .key_length = state.range(2),
             .query_stride = 3 * width,
             .key_stride = 3 * width,
             .value_stride = 3 * width};
  }
  // FLOPs of one GEMM over all heads.
  [[nodiscard]] double product_flops() const {
    return 2.0 * static_cast<double>(rows * shape.key_length) * static_cast<double>(width);
  }
  [[nodiscard]] std::size_t sets() const { return rotations(4 * kBytes * static_cast<double>(rows * width)); }

  std::int64_t width;
  std::int64_t rows;
  Dropout dropout;
  AttentionShape shape;
};

void attention_forward(benchmark::State& state) {
  if (skipped(state)) return;
  const AttentionProblem p(state);
  const Rotating<Number> qkv(p.sets(), 3 * p.rows * p.width);
  const Rotating<Number> out(p.sets(), p.rows * p.width);
  const Rotating<float> logsumexp(p.sets(), p.rows * p.shape.heads);
  measure(state, p.sets(), 0, 2 * p.product_flops(), [&](std::size_t i) {
    attention_forward<Number>(backend(), {.shape = p.shape,
                                          .q = qkv[i],
                                          .k = qkv[i] + p.width,
                                          .v = qkv[i] + 2 * p.width,
                                          .dropout = p.dropout,
                                          .out = out[i],
                                          .logsumexp = logsumexp[i]});
  });
}

void attention_backward(benchmark::State& state) {
  if (skipped(state)) return;
  const AttentionProblem p(state);
  const std::size_t sets = p.sets();
  const Rotating<Number> qkv(sets, 3 * p.rows * p.width);
  const Rotating<Number> dqkv(sets, 3 * p.rows * p.width);
  const Rotating<Number> out(sets, p.rows * p.width);
  const Rotating<Number> dout(sets, p.rows * p.width);
  const Rotating<float> logsumexp(sets, p.rows * p.shape.heads);
  const Rotating<char> scratch(
      1, static_cast<std::int64_t>(scratch_bytes(Cuda{}, AttentionBackward<Number>{.shape = p.shape})));
  measure(state, sets, 0, 5 * p.product_flops(), [&](std::size_t i) {
    attention_backward<Number>(backend(), {.shape = p.shape,
                                           .dout = dout[i],
                                           .q = qkv[i],
                                           .k = qkv[i] + p.width,
                                           .v = qkv[i] + 2 * p.width,
                                           .out = out[i],
                                           .logsumexp = logsumexp[i],
                                           .dropout = p.dropout,
                                           .dq = dqkv[i],
                                           .dk = dqkv[i] + p.width,
                                           .dv = dqkv[i] + 2 * p.width,
                                           .scratch = scratch[0]});
  });
}

void pooling_forward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t columns = state.range(2);
  const double bytes = kBytes * static_cast<double>(batch * length * columns);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> x(sets, batch * length * columns);
  const Rotating<Number> y(1, batch * columns);
  const Rotating<std::int32_t> argmax(1, batch * columns);
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    pooling_forward<Number>(
        backend(),
        {.batch = batch, .length = length, .columns = columns, .x = x[i], .y = y[0], .argmax = argmax[0]});
  });
}

void pooling_backward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t columns = state.range(2);
  const double bytes = kBytes * static_cast<double>(batch * length * columns);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> dy(1, batch * columns);
  const Rotating<std::int32_t> argmax(1, batch * columns);
  const Rotating<Number> dx(sets, batch * length * columns);
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    pooling_backward<Number>(backend(), {.batch = batch,
                                         .length = length,
                                         .columns = columns,
                                         .dy = dy[0],
                                         .argmax = argmax[0],
                                         .dx = dx[i]});
  });
}

void bias_gradient(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const double bytes = kBytes * static_cast<double>(rows * columns);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> dy(sets, rows * columns);
  const Rotating<Number> dbias(1, columns);
  const Rotating<char> scratch(1, static_cast<std::int64_t>(scratch_bytes(
                                      Cuda{}, BiasGradient<Number>{.rows = rows, .columns = columns})));
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    bias_gradient<Number>(
        backend(), {.rows = rows, .columns = columns, .dy = dy[i], .dbias = dbias[0], .scratch = scratch[0]});
  });
}

void gradient_norm(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t elements = state.range(0);
  const double bytes = kBytes * static_cast<double>(elements);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> gradient(sets, elements);
  const Rotating<float> norm(1, 1);
  const Rotating<char> scratch(
      1, static_cast<std::int64_t>(scratch_bytes(Cuda{}, GradientNorm<Number>{.elements = elements})));
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    gradient_norm<Number>(
        backend(), {.elements = elements, .gradient = gradient[i], .norm = norm[0], .scratch = scratch[0]});
  });
}

/// One stream of a batch of videos of 300 frames each, in fp16.
void gather_frames(benchmark::State& state) {
  if (skipped(state)) return;
  constexpr std::int64_t kFrames = 300;
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t width = state.range(2);
  std::vector<FrameWindow> windows;
  for (std::int64_t b = 0; b < batch; ++b)
    windows.push_back({b * kFrames, kFrames, b % 40, b % 5 == 0 ? 3 : 0});
  const double bytes = 2 * kBytes * static_cast<double>(batch * length * width);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> frames(sets, batch * kFrames * width);
  const Rotating<Number> out(sets, batch * length * width);
  const Rotating<FrameWindow> placed(1, batch);
  VOCA_CUDA(
      cudaMemcpy(placed[0], windows.data(), windows.size() * sizeof(FrameWindow), cudaMemcpyHostToDevice));
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    gather_frames<Number>(backend(), {batch, length, width, FrameType::kHalf, frames[i], placed[0], out[i]});
  });
}

void rows_and_columns(benchmark::internal::Benchmark* bench, std::int64_t factor) {
  bench->ArgNames({"rows", "columns", "dropout%"})->UseManualTime()->Iterations(kIterations);
  for (const std::int64_t p : {0, 10})
    bench->Args({kBaseRows, factor * 768, p})->Args({kLargeRows, factor * 1024, p});
}
void hidden(benchmark::internal::Benchmark* bench) {
  rows_and_columns(bench, 1);
}
void feed_forward(benchmark::internal::Benchmark* bench) {
  rows_and_columns(bench, 4);
}
void heads(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"B", "N", "T", "d", "dropout%"})->UseManualTime()->Iterations(kIterations);
  for (const std::int64_t p : {0, 10}) bench->Args({64, 8, 256, 96, p})->Args({80, 16, 320, 64, p});
}
BENCHMARK(layernorm_forward)->Apply(hidden);
BENCHMARK(layernorm_backward)->Apply(hidden);
BENCHMARK(gelu_forward)->Apply(feed_forward);
BENCHMARK(gelu_backward)->Apply(feed_forward);
BENCHMARK(attention_forward)->Apply(heads);
BENCHMARK(attention_backward)->Apply(heads);
void sequences(benchmark::internal::Benchmark* bench) {
  bench->UseManualTime()->Iterations(kIterations)->Args({64, 256, 768})->Args({80, 320, 1024});
}
BENCHMARK(pooling_forward)->Apply(sequences);
BENCHMARK(pooling_backward)->Apply(sequences);
BENCHMARK(bias_gradient)
    ->UseManualTime()
    ->Iterations(kIterations)
    ->Args({kBaseRows, 2304})
    ->Args({kLargeRows, 3072});
BENCHMARK(gradient_norm)
    ->UseManualTime()
    ->Iterations(kIterations)
    ->ArgName("parameters")
    ->Arg(32589569)
    ->Arg(82669825);
BENCHMARK(gather_frames)
    ->UseManualTime()
    ->Iterations(kIterations)
    ->Args({64, 256, 512})
    ->Args({80, 320, 512});

}  // namespace
}  // namespace voca::kernels::benchmarks
