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

// What a CUDA kernel's speed is held against, measured in the same run: copying the same bytes on the same
// GPU, nothing of it in the L2 cache. Times are those of the GPU's own clock between two events.

namespace voca::kernels::benchmarks {

/// Each is the time of at least 20 launches.
inline constexpr std::int64_t kIterations = 15;

/// The GPU that is measured; null where there is none. What the engine logs goes to stderr: results are on
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

/// Sets of operands of `bytes` that a run must go through so that none is left in the cache when it is its
/// turn again.
inline std::size_t rotations(double bytes) {
  return 2 + static_cast<std::size_t>(2.0 * static_cast<double>(l2_bytes()) / std::max(bytes, 1.0));
}

/// Seconds of `launches` calls, by the GPU's clock.
inline double seconds_of(std::size_t launches, const std::function<void(std::size_t)>& launch) {
  struct Events {
    Events() {
      VOCA_CUDA(cudaEventCreate(&begin));
      VOCA_CUDA(cudaEventCreate(&end));
    }
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
  };
  static const Events events;  // destroyed with the process
  auto* const stream = static_cast<cudaStream_t>(gpu()->compute_stream());
  VOCA_CUDA(cudaEventRecord(events.begin, stream));
  for (std::size_t i = 0; i < launches; ++i) launch(i);
  VOCA_CUDA(cudaEventRecord(events.end, stream));
  VOCA_CUDA(cudaEventSynchronize(events.end));
  float milliseconds = 0;
  VOCA_CUDA(cudaEventElapsedTime(&milliseconds, events.begin, events.end));
  return static_cast<double>(milliseconds) / 1e3;
}

/// Arrays of `elements` numbers on the GPU, one for each set; small numbers, all different from 0.
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

/// Bytes a second (read and written counted once each) of copying so many, outside of the cache.
inline double copy_roof(double bytes) {
  static std::map<std::int64_t, double> measured;
  const auto half = std::max<std::int64_t>(4096, static_cast<std::int64_t>(bytes) / 2);
  double& roof = measured[half];
  if (roof > 0) return roof;
  const std::size_t sets = rotations(2.0 * static_cast<double>(half));
  const Rotating<char> from(sets, half);
  const Rotating<char> to(sets, half);
  auto* const stream = static_cast<cudaStream_t>(gpu()->compute_stream());
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

/// Times `launch(set)`, many launches an iteration, over sets that follow one another. `bytes` and `flops`
/// are those of one launch; 0 leaves a rate out.
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

/// Skips the benchmark with the reason where there is no GPU.
inline bool skipped(benchmark::State& state) {
  if (gpu() != nullptr) return false;
  state.SkipWithError(engine::cuda_availability().reason.c_str());
  return true;
}

}  // namespace voca::kernels::benchmarks
