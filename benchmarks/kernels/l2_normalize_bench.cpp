#include "kernels/l2_normalize.h"

#include "benchmarks/kernels/support/roof.h"

namespace voca::kernels::benchmarks {
namespace {

/// Reads x; writes z and one norm per row.
void l2_normalize_forward(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const auto x = numbers(rows * columns);
  std::vector<float> z(x.size());
  std::vector<float> norm(static_cast<std::size_t>(rows));
  for (auto _ : state) {
    l2_normalize_forward<float>(Cpu{}, {rows, columns, x.data(), z.data(), norm.data()});
  }
  report(state, 8.0 * static_cast<double>(x.size()), 0);
}

/// Reads dz and z, writes dx.
void l2_normalize_backward(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  const std::int64_t columns = state.range(1);
  const auto dz = numbers(rows * columns);
  const auto z = numbers(rows * columns, 2);
  const std::vector<float> norm(static_cast<std::size_t>(rows), 0.9F);
  std::vector<float> dx(dz.size());
  for (auto _ : state) {
    l2_normalize_backward<float>(Cpu{}, {rows, columns, dz.data(), z.data(), norm.data(), dx.data()});
  }
  report(state, 12.0 * static_cast<double>(dz.size()), 0);
}

// Embeddings of both streams of a batch of 64, and enough rows to show the rate.
void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "columns"})->Args({128, 256})->Args({16384, 256})->UseRealTime();
}
BENCHMARK(l2_normalize_forward)->Apply(shapes);
BENCHMARK(l2_normalize_backward)->Apply(shapes);

}  // namespace
}  // namespace voca::kernels::benchmarks
