#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/gemm.h"

// Roofs that kernel speeds are compared with, measured in the same run: copying within a working set of the
// same size, and a large GEMM. Threads: OMP_NUM_THREADS, or all cores.

namespace voca::kernels::benchmarks {

/// Seconds of the fastest of `repeats` calls.
template <typename F>
double fastest(int repeats, F f) {
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

/// Bytes per second of copying within a working set of `bytes`; bytes read and bytes written count once each.
inline double copy_roof(double bytes) {
  static std::map<std::int64_t, double> measured;
  const auto half = std::max<std::int64_t>(4096, static_cast<std::int64_t>(bytes) / 2);
  double& roof = measured[half];
  if (roof > 0) return roof;
  std::vector<char> from(static_cast<std::size_t>(half), 1);
  std::vector<char> to(static_cast<std::size_t>(half), 2);
  const auto copy = [&](std::int64_t pieces) {
    cpu::parallel_for(pieces, [&](std::int64_t i) {
      const std::int64_t begin = half * i / pieces;
      const std::int64_t end = half * (i + 1) / pieces;
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<std::size_t>(end - begin));
    });
    benchmark::ClobberMemory();
  };
  // A small copy finishes before a second thread has woken up: take the better of 1 and 16 pieces.
  const double seconds = std::min(fastest(30, [&] { copy(1); }), fastest(30, [&] { copy(16); }));
  return roof = 2.0 * static_cast<double>(half) / seconds;
}

/// Scratch of at least `bytes`, aligned to kScratchAlignment.
class AlignedScratch {
 public:
  explicit AlignedScratch(std::size_t bytes) : memory_(bytes + kScratchAlignment) {}
  [[nodiscard]] void* data() {
    void* at = memory_.data();
    std::size_t space = memory_.size();
    return std::align(kScratchAlignment, space - kScratchAlignment, at, space);
  }

 private:
  std::vector<char> memory_;
};

/// FLOP/s of a 1536³ GEMM in float32.
inline double gemm_roof() {
  static const double roof = [] {
    constexpr std::int64_t kSize = 1536;
    const std::vector<float> a(kSize * kSize, 0.5F);
    std::vector<float> c(kSize * kSize);
    Gemm<float> args{.m = kSize,
                     .n = kSize,
                     .k = kSize,
                     .a = a.data(),
                     .lda = kSize,
                     .b = a.data(),
                     .ldb = kSize,
                     .c = c.data(),
                     .ldc = kSize};
    AlignedScratch scratch(scratch_bytes(Cpu{}, args));
    args.scratch = scratch.data();
    const double seconds = fastest(10, [&] { gemm(Cpu{}, args); });
    return 2.0 * kSize * kSize * kSize / seconds;
  }();
  return roof;
}

/// Reports bytes and FLOPs per iteration as rates, and each rate as a fraction of its roof.
inline void report(benchmark::State& state, double bytes, double flops) {
  using benchmark::Counter;
  const auto iterations = static_cast<double>(state.iterations());
  if (bytes > 0) {
    state.counters["bytes/s"] = Counter(bytes * iterations, Counter::kIsRate);
    state.counters["of_copy"] = Counter(bytes * iterations / copy_roof(bytes), Counter::kIsRate);
  }
  if (flops > 0) {
    state.counters["flop/s"] = Counter(flops * iterations, Counter::kIsRate);
    state.counters["of_gemm"] = Counter(flops * iterations / gemm_roof(), Counter::kIsRate);
  }
}

/// `n` numbers uniform in [−2, 2).
inline std::vector<float> numbers(std::int64_t n, std::uint32_t seed = 1) {
  std::mt19937 generator(seed);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (float& value : values) value = static_cast<float>(generator()) * 0x1p-30F - 2.0F;
  return values;
}

}  // namespace voca::kernels::benchmarks
