#include "kernels/elementwise.h"

#include "benchmarks/cuda/support/gpu.h"
#include "kernels/positional_encoding.h"

// Memory-bound kernels at the sizes of the Base and Large recipes: B · T · H activations in bf16, and as many
// parameters.

namespace voca::kernels::benchmarks {
namespace {

using Number = __nv_bfloat16;
constexpr double kBytes = sizeof(Number);

Cuda backend() {
  return {gpu()->compute_stream()};
}

void weighted_sum(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t elements = state.range(0);
  const double bytes = 3 * kBytes * static_cast<double>(elements);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> a(sets, elements);
  const Rotating<Number> b(sets, elements);
  const Rotating<Number> out(sets, elements);
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    weighted_sum<Number>(backend(), {.elements = elements, .a = a[i], .b = b[i], .out = out[i]});
  });
}

/// Only writes.
void fill(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t elements = state.range(0);
  const double bytes = kBytes * static_cast<double>(elements);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> out(sets, elements);
  measure(state, sets, bytes, 0, [&](std::size_t i) { fill(backend(), elements, Number(0.0F), out[i]); });
}

void cast_from_float(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t elements = state.range(0);
  const double bytes = (sizeof(float) + kBytes) * static_cast<double>(elements);
  const std::size_t sets = rotations(bytes);
  const Rotating<float> from(sets, elements);
  const Rotating<Number> to(sets, elements);
  measure(state, sets, bytes, 0,
          [&](std::size_t i) { cast<float, Number>(backend(), elements, from[i], to[i]); });
}

void positional_encoding_forward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t columns = state.range(2);
  const double bytes = 2 * kBytes * static_cast<double>(batch * length * columns);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> x(sets, batch * length * columns);
  const Rotating<Number> y(sets, batch * length * columns);
  const Rotating<Number> encoding(1, length * columns);
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    positional_encoding_forward<Number>(backend(), {.batch = batch,
                                                    .length = length,
                                                    .columns = columns,
                                                    .x = x[i],
                                                    .encoding = encoding[0],
                                                    .y = y[i]});
  });
}

void positional_encoding_backward(benchmark::State& state) {
  if (skipped(state)) return;
  const std::int64_t batch = state.range(0);
  const std::int64_t length = state.range(1);
  const std::int64_t columns = state.range(2);
  const double bytes = kBytes * static_cast<double>(batch * length * columns);
  const std::size_t sets = rotations(bytes);
  const Rotating<Number> dy(sets, batch * length * columns);
  const Rotating<Number> dencoding(1, length * columns);
  measure(state, sets, bytes, 0, [&](std::size_t i) {
    positional_encoding_backward<Number>(
        backend(),
        {.batch = batch, .length = length, .columns = columns, .dy = dy[i], .dencoding = dencoding[0]});
  });
}

void numbers(benchmark::internal::Benchmark* bench) {
  bench->UseManualTime()->Iterations(kIterations)->ArgName("elements");
  for (const std::int64_t elements : {64 * 256 * 768, 80 * 320 * 1024}) bench->Arg(elements);
}
void sequences(benchmark::internal::Benchmark* bench) {
  bench->UseManualTime()->Iterations(kIterations)->Args({64, 256, 768})->Args({80, 320, 1024});
}
BENCHMARK(weighted_sum)->Apply(numbers);
BENCHMARK(fill)->Apply(numbers);
BENCHMARK(cast_from_float)->Apply(numbers);
BENCHMARK(positional_encoding_forward)->Apply(sequences);
BENCHMARK(positional_encoding_backward)->Apply(sequences);

}  // namespace
}  // namespace voca::kernels::benchmarks
