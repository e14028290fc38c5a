#pragma once

#include <benchmark/benchmark.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "engine/core/cuda_device.h"
#include "engine/cuda/check.h"

// Roof that the speed of a CUDA kernel is compared with, measured in the same run: copying as many bytes on
// the same GPU, outside the L2 cache. Times are measured between two CUDA events.

namespace voca::kernels::benchmarks {

/// Iterations of a benchmark; each times at least 20 launches.
inline constexpr std::int64_t kIterations = 15;

/// The GPU under test; null if there is none. The log of the engine goes to stderr, because results go to
/// stdout.
inline engine::Device* gpu() {
  static const std::unique_ptr<engine::Device> device = [] {
    spdlog::set_default_logger(spdlog::stderr_logger_mt("benchmark"));
    return engine::cuda_availability().devices > 0
               ? engine::make_cuda_device(engine::cuda_availability().first, {})
               : nullptr;
  }();
  return device.get();
}

inline std::size_t l2_bytes() {
  static const std::size_t bytes = [] {
    int index = 0;
    int size = 0;
    VOCA_CUDA(cudaGetDevice(&index));
    VOCA_CUDA(cudaDeviceGetAttribute(&size, cudaDevAttrL2CacheSize, index));
    return static_cast<std::size_t>(size);
  }();
  return bytes;
}

/// Number of operand sets of `bytes` each to cycle through, so that a set has left the L2 cache before it is
/// used again.
inline std::size_t rotations(double bytes) {
  return 2 + static_cast<std::size_t>(2.0 * static_cast<double>(l2_bytes()) / std::max(bytes, 1.0));
}

/// Seconds of `launches` calls, between two CUDA events.
inline double seconds_of(std::size_t launches, const std::function<void(std::size_t)>& launch) {
  struct Events {
    Events() {
      VOCA_CUDA(cudaEventCreate(&begin));
      VOCA_CUDA(cudaEventCreate(&end));
    }
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
  };
  static const Events events;  // released when the process exits
  const engine::Stream stream = gpu()->compute_stream();
  VOCA_CUDA(cudaEventRecord(events.begin, stream));
  for (std::size_t i = 0; i < launches; ++i) launch(i);
  VOCA_CUDA(cudaEventRecord(events.end, stream));
  VOCA_CUDA(cudaEventSynchronize(events.end));
  float milliseconds = 0;
  VOCA_CUDA(cudaEventElapsedTime(&milliseconds, events.begin, events.end));
  return static_cast<double>(milliseconds) / 1e3;
}

/// `sets` arrays of `elements` numbers each on the GPU; the numbers are small and not 0.
template <typename T>
class Rotating {
 public:
  Rotating(std::size_t sets, std::int64_t elements) : elements_(static_cast<std::size_t>(elements)) {
    block_ = gpu()->allocate("benchmark", sets * elements_ * sizeof(T));
    VOCA_CUDA(cudaMemset(block_.data(), 0x3C, block_.bytes()));
    VOCA_CUDA(cudaDeviceSynchronize());
  }
  [[nodiscard]] T* operator[](std::size_t set) const {
    return reinterpret_cast<T*>(block_.data()) + set * elements_;
  }

 private:
  std::size_t elements_;
  engine::Device::Block block_;
};

/// Bytes per second of copying `bytes` outside the L2 cache; bytes read and bytes written count once each.
inline double copy_roof(double bytes) {
  static std::map<std::int64_t, double> measured;
  const auto half = std::max<std::int64_t>(4096, static_cast<std::int64_t>(bytes) / 2);
  double& roof = measured[half];
  if (roof > 0) return roof;
  const std::size_t sets = rotations(2.0 * static_cast<double>(half));
  const Rotating<char> from(sets, half);
  const Rotating<char> to(sets, half);
  const engine::Stream stream = gpu()->compute_stream();
  const auto copy = [&](std::size_t i) {
    VOCA_CUDA(cudaMemcpyAsync(to[i % sets], from[i % sets], static_cast<std::size_t>(half),
                              cudaMemcpyDeviceToDevice, stream));
  };
  const std::size_t launches = std::max<std::size_t>(sets, 20);
  (void)seconds_of(launches, copy);
  double best = 1e30;
  for (int i = 0; i < 10; ++i) best = std::min(best, seconds_of(launches, copy));
  return roof = 2.0 * static_cast<double>(half) * static_cast<double>(launches) / best;
}

/// Times `launch(set)`, with many launches per iteration, cycling through the sets. `bytes` and `flops` are
/// per launch; 0 omits the rate.
inline void measure(benchmark::State& state, std::size_t sets, double bytes, double flops,
                    const std::function<void(std::size_t)>& launch) {
  using benchmark::Counter;
  const std::size_t launches = std::max<std::size_t>(sets, 20);
  const auto rotate = [&](std::size_t i) { launch(i % sets); };
  (void)seconds_of(launches, rotate);
  for (auto _ : state) state.SetIterationTime(seconds_of(launches, rotate) / static_cast<double>(launches));
  const auto iterations = static_cast<double>(state.iterations());
  if (bytes > 0) {
    state.counters["bytes/s"] = Counter(bytes * iterations, Counter::kIsRate);
    state.counters["of_copy"] = Counter(bytes * iterations / copy_roof(bytes), Counter::kIsRate);
  }
  if (flops > 0) state.counters["flop/s"] = Counter(flops * iterations, Counter::kIsRate);
}

/// Skips the benchmark with the reason if there is no GPU.
inline bool skipped(benchmark::State& state) {
  if (gpu() != nullptr) return false;
  state.SkipWithError(engine::cuda_availability().reason.c_str());
  return true;
}

}  // namespace voca::kernels::benchmarks
