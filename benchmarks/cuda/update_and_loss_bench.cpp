#include "benchmarks/cuda/support/gpu.h"
#include "engine/core/gemm_library.h"
#include "kernels/adamw.h"
#include "kernels/binary_cross_entropy.h"
#include "kernels/infonce.h"
#include "kernels/l2_normalize.h"
#include "kernels/softmax.h"
#include "kernels/softmax_cross_entropy.h"

// The optimiser, the losses, the softmax of the unfused attention path, and the GEMMs of the Base and Large
// recipes in bf16.

namespace voca::kernels::benchmarks {
namespace {

using Number = __nv_bfloat16;
constexpr double kBytes = sizeof(Number);

Cuda backend() {
  return {gpu()->compute_stream()};
}

/// Reads the gradient; reads and writes master weights and both moments; writes the weights.
void adamw(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t elements = state.range(0);
  const double bytes = (2 * kBytes + 6 * sizeof(float)) * static_cast<double>(elements);
  const Rotating<Number> gradient(1, elements);
  const Rotating<Number> weights(1, elements);
  const Rotating<float> master(1, elements);
  const Rotating<float> exp_avg(1, elements);
  const Rotating<float> exp_avg_sq(1, elements);
  const Rotating<float> norm(1, 1);
  const Rotating<OptimizerState> optimizer(1, 1);
  const OptimizerState start{.lr = 1e-6};
  VOCA_CUDA(cudaMemcpy(optimizer[0], &start, sizeof start, cudaMemcpyHostToDevice));
  const Rotating<char> scratch(1, static_cast<std::int64_t>(scratch_bytes(Cuda{}, AdamW<Number>{})));
  measure(state, 1, bytes, 0, [&](std::size_t) {
    AdamW<Number> args;
    args.elements = elements;
    args.options.weight_decay = 1e-4;
    args.max_norm = 1;
    args.state = optimizer[0];
    args.norm = norm[0];
    args.gradient = gradient[0];
    args.master = master[0];
    args.exp_avg = exp_avg[0];
    args.exp_avg_sq = exp_avg_sq[0];
    args.weights = weights[0];
    args.scratch = scratch[0];
    adamw(backend(), args);
  });
}

void infonce(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  constexpr std::int64_t kWidth = 256;
  const double flops = 6.0 * static_cast<double>(rows * columns * kWidth);
  const Rotating<Number> zv(1, rows * kWidth);
  const Rotating<Number> za(1, columns * kWidth);
  const Rotating<Number> dzv(1, rows * kWidth);
  const Rotating<Number> dza(1, columns * kWidth);
  const Rotating<std::int32_t> labels(1, columns);
  const Rotating<float> loss(1, 1);
  const Rotating<char> scratch(
      1, static_cast<std::int64_t>(scratch_bytes(Cuda{}, InfoNce<Number>{.rows = rows, .columns = columns})));
  measure(state, 1, 0, flops, [&](std::size_t) {
    InfoNce<Number> args;
    args.rows = rows;
    args.columns = columns;
    args.width = kWidth;
    args.zv = zv[0];
    args.za = za[0];
    args.row_labels = labels[0];
    args.column_labels = labels[0];
    args.grad = 1;
    args.loss = loss[0];
    args.dzv = dzv[0];
    args.dza = dza[0];
    args.scratch = scratch[0];
    infonce(backend(), args);
  });
}

void binary_cross_entropy(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t rows = state.range(0);
  const Rotating<Number> logits(1, rows);
  const Rotating<Number> dlogits(1, rows);
  const Rotating<std::int32_t> labels(1, rows);
  const Rotating<float> loss(1, 1);
  measure(state, 1, 0, 0, [&](std::size_t) {
    BinaryCrossEntropy<Number> args;
    args.rows = rows;
    args.smoothing = 0.1;
    args.grad = 1;
    args.logits = logits[0];
    args.labels = labels[0];
    args.loss = loss[0];
    args.dlogits = dlogits[0];
    binary_cross_entropy(backend(), args);
  });
}

void softmax_cross_entropy(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t rows = state.range(0);
  const std::int64_t classes = state.range(1);
  const Rotating<Number> logits(1, rows * classes);
  const Rotating<Number> dlogits(1, rows * classes);
  const Rotating<std::int32_t> labels(1, rows);
  VOCA_CUDA(cudaMemset(labels[0], 0, static_cast<std::size_t>(rows) * sizeof(std::int32_t)));
  const Rotating<float> loss(1, 1);
  measure(state, 1, 0, 0, [&](std::size_t) {
    SoftmaxCrossEntropy<Number> args;
    args.rows = rows;
    args.classes = classes;
    args.smoothing = 0.1;
    args.grad = 1;
    args.logits = logits[0];
    args.labels = labels[0];
    args.loss = loss[0];
    args.dlogits = dlogits[0];
    softmax_cross_entropy(backend(), args);
  });
}

void l2_normalize_backward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t rows = state.range(0);
  constexpr std::int64_t kWidth = 256;
  const double bytes = 3 * kBytes * static_cast<double>(rows * kWidth);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> dz(sets, rows * kWidth);
  const Rotating<Number> z(sets, rows * kWidth);
  const Rotating<Number> dx(sets, rows * kWidth);
  const Rotating<float> norm(1, rows);
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    l2_normalize_backward<Number>(backend(), {rows, kWidth, dz[i], z[i], norm[0], dx[i]});
  });
}

void l2_normalize_forward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t rows = state.range(0);
  constexpr std::int64_t kWidth = 256;
  const double bytes = 2 * kBytes * static_cast<double>(rows * kWidth);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> x(sets, rows * kWidth);
  const Rotating<Number> z(sets, rows * kWidth);
  const Rotating<float> norm(1, rows);
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    l2_normalize_forward<Number>(backend(), {rows, kWidth, x[i], z[i], norm[0]});
  });
}

Dropout dropout_of(std::int64_t percent) {
  return {.seed = 1, .threshold = dropout_threshold(static_cast<double>(percent) / 100)};
}

/// B · N matrices of T × T, as in the unfused attention path.
void softmax_forward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t elements = batch * length * length;
  const double bytes = 3 * kBytes * static_cast<double>(elements);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> scores(sets, elements);
  const Rotating<Number> probabilities(sets, elements);
  const Rotating<Number> dropped(sets, elements);
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    SoftmaxForward<Number> args;
    args.batch = batch;
    args.query_length = args.key_length = length;
    args.scores = scores[i];
    args.dropout = dropout_of(10);
    args.probabilities = probabilities[i];
    args.dropped = dropped[i];
    softmax_forward(backend(), args);
  });
}

void softmax_backward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t elements = batch * length * length;
  const double bytes = 3 * kBytes * static_cast<double>(elements);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> ddropped(sets, elements);
  const Rotating<Number> probabilities(sets, elements);
  const Rotating<Number> dscores(sets, elements);
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    SoftmaxBackward<Number> args;
    args.batch = batch;
    args.query_length = args.key_length = length;
    args.ddropped = ddropped[i];
    args.probabilities = probabilities[i];
    args.dropout = dropout_of(10);
    args.dscores = dscores[i];
    softmax_backward(backend(), args);
  });
}

/// y (rows, n) = x · Wᵀ, dx = dy · W or dW = dyᵀ · x, with the autotuned algorithm or the first one of the
/// library.
void gemm(benchmark::State& state) {
  if (skipped(state)) return;
  enum : std::int64_t { kForward, kInputGradient, kWeightGradient };
  const std::int64_t rows = state.range(0);
  const std::int64_t out = state.range(1);
  const std::int64_t in = state.range(2);
  static const std::unique_ptr<engine::Device> untuned =
      engine::make_cuda_device(engine::cuda_availability().first, {.autotune = false});
  engine::GemmLibrary& library = state.range(4) != 0 ? *gpu()->gemm_library() : *untuned->gemm_library();
  engine::LibraryGemm p{{}, engine::DType::kBF16};
  switch (state.range(3)) {
    case kForward:
      p.transpose_b = Transpose::kYes;
      p.m = rows, p.n = out, p.k = in;
      break;
    case kInputGradient:
      p.m = rows, p.n = in, p.k = out;
      break;
    default:
      p.transpose_a = Transpose::kYes;
      p.m = out, p.n = in, p.k = rows;
      p.beta = 1;
  }
  p.lda = p.transpose_a == Transpose::kYes ? p.m : p.k;
  p.ldb = p.transpose_b == Transpose::kYes ? p.k : p.n;
  p.ldc = p.n;
  const double bytes = kBytes * static_cast<double>(p.m * p.k + p.k * p.n + p.m * p.n);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> a(sets, p.m * p.k);
  const Rotating<Number> b(sets, p.k * p.n);
  const Rotating<Number> c(sets, p.m * p.n);
  const Rotating<char> workspace(1, static_cast<std::int64_t>(library.workspace_bytes()));
  const Rotating<char> memory(1, std::int64_t{1} << 30);
  library.prepare(p);
  library.tune(reinterpret_cast<std::byte*>(workspace[0]), reinterpret_cast<std::byte*>(memory[0]),
               std::size_t{1} << 30);
  measure(state, sets, 0, 2.0 * static_cast<double>(p.m * p.n * p.k), [&](std::size_t i) {
    engine::LibraryGemm placed = p;
    placed.a = a[i];
    placed.b = b[i];
    placed.c = c[i];
    library.gemm(placed, backend().stream);
  });
}
void gemms_of_the_recipes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "out", "in", "pass", "tuned"})->UseManualTime()->Iterations(kIterations);
  for (const std::int64_t tuned : {0, 1}) {
    for (const std::int64_t pass : {0, 1, 2}) {
      for (const auto& [rows, hidden] :
           {std::pair<std::int64_t, std::int64_t>{64 * 256, 768}, {80 * 320, 1024}}) {
        bench->Args({rows, 3 * hidden, hidden, pass, tuned});
        bench->Args({rows, 4 * hidden, hidden, pass, tuned});
        bench->Args({rows, hidden, 4 * hidden, pass, tuned});
        bench->Args({rows, hidden, 512, pass, tuned});
      }
    }
  }
}

BENCHMARK(adamw)
    ->UseManualTime()
    ->Iterations(kIterations)
    ->ArgName("parameters")
    ->Arg(32589569)
    ->Arg(82669825);
BENCHMARK(infonce)->UseManualTime()->Iterations(kIterations)->Args({64, 64})->Args({64, 256})->Args({80, 80});
BENCHMARK(binary_cross_entropy)->UseManualTime()->Iterations(kIterations)->Arg(64);
BENCHMARK(softmax_cross_entropy)->UseManualTime()->Iterations(kIterations)->Args({64, 2});
BENCHMARK(l2_normalize_forward)->UseManualTime()->Iterations(kIterations)->Arg(128)->Arg(160);
BENCHMARK(l2_normalize_backward)->UseManualTime()->Iterations(kIterations)->Arg(128)->Arg(160);
BENCHMARK(softmax_forward)
    ->UseManualTime()
    ->Iterations(kIterations)
    ->Args({64 * 8, 256})
    ->Args({80 * 16, 320});
BENCHMARK(softmax_backward)
    ->UseManualTime()
    ->Iterations(kIterations)
    ->Args({64 * 8, 256})
    ->Args({80 * 16, 320});
BENCHMARK(gemm)->Apply(gemms_of_the_recipes);

}  // namespace
}  // namespace voca::kernels::benchmarks
