#include "benchmarks/kernels/support/roof.h"
#include "kernels/binary_cross_entropy.h"
#include "kernels/infonce.h"
#include "kernels/softmax_cross_entropy.h"

// Losses with their gradients. At the size of a batch, call overhead dominates; the large sizes show the
// rate.

namespace voca::kernels::benchmarks {
namespace {

std::vector<std::int32_t> labels_of(std::int64_t rows, std::int64_t classes) {
  std::vector<std::int32_t> labels(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = static_cast<std::int32_t>(i % static_cast<std::size_t>(classes));
  return labels;
}

/// Reads logits and labels, writes dlogits.
void binary_cross_entropy(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const auto logits = numbers(rows);
  const auto labels = labels_of(rows, 2);
  std::vector<float> dlogits(logits.size());
  float loss = 0;
  for (auto _ : state) {
    binary_cross_entropy<float>(Cpu{}, {.rows = rows,
                                        .smoothing = 0.1,
                                        .grad = 1,
                                        .logits = logits.data(),
                                        .labels = labels.data(),
                                        .loss = &loss,
                                        .dlogits = dlogits.data()});
    benchmark::DoNotOptimize(loss);
  }
  report(state, 12.0 * static_cast<double>(rows), 0);
}
BENCHMARK(binary_cross_entropy)->ArgName("rows")->Arg(64)->Arg(1 << 16)->UseRealTime();

/// Reads logits and labels, writes dlogits.
void softmax_cross_entropy(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t classes = state.range(1);
  const auto logits = numbers(rows * classes);
  const auto labels = labels_of(rows, classes);
  std::vector<float> dlogits(logits.size());
  float loss = 0;
  for (auto _ : state) {
    softmax_cross_entropy<float>(Cpu{}, {.rows = rows,
                                         .classes = classes,
                                         .smoothing = 0.1,
                                         .grad = 1,
                                         .logits = logits.data(),
                                         .labels = labels.data(),
                                         .loss = &loss,
                                         .dlogits = dlogits.data()});
    benchmark::DoNotOptimize(loss);
  }
  report(state, static_cast<double>(rows) * (8.0 * static_cast<double>(classes) + 4.0), 0);
}
BENCHMARK(softmax_cross_entropy)
    ->ArgNames({"rows", "classes"})
    ->Args({64, 4})
    ->Args({1 << 14, 4})
    ->UseRealTime();

/// Three GEMMs of rows × rows × width: the similarities and both gradients.
void infonce(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t width = 256;
  // Numbers in [−2, 2) have a mean square of 4/3; scaled, the rows have about unit length.
  auto zv = numbers(rows * width);
  auto za = numbers(rows * width, 2);
  for (auto* z : {&zv, &za})
    for (float& value : *z) value *= 0.054F;
  const auto labels = labels_of(rows, 2);
  std::vector<float> dzv(zv.size());
  std::vector<float> dza(za.size());
  float loss = 0;
  AlignedScratch scratch(scratch_bytes(Cpu{}, InfoNce<float>{.rows = rows, .columns = rows, .width = width}));
  for (auto _ : state) {
    infonce<float>(Cpu{}, {.rows = rows,
                           .columns = rows,
                           .width = width,
                           .zv = zv.data(),
                           .za = za.data(),
                           .row_labels = labels.data(),
                           .column_labels = labels.data(),
                           .grad = 0.5,
                           .loss = &loss,
                           .dzv = dzv.data(),
                           .dza = dza.data(),
                           .scratch = scratch.data()});
    benchmark::DoNotOptimize(loss);
  }
  report(state, 0, 6.0 * static_cast<double>(rows * rows * width));
}
// Batch of the step benchmark, of the base recipe, and of eight ranks together.
BENCHMARK(infonce)->ArgName("rows")->Arg(16)->Arg(64)->Arg(512)->UseRealTime();

}  // namespace
}  // namespace voca::kernels::benchmarks
