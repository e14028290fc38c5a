#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <limits>

#include "engine/core/gemm_library.h"
#include "engine/cuda/check.h"
#include "engine/cuda/graphs.h"

// What timing the candidates of a GEMM needs.

namespace voca::engine::cuda {

/// Owning CUDA event that records the time.
class TimingEvent {
 public:
  TimingEvent() { VOCA_CUDA(cudaEventCreate(&event_)); }
  ~TimingEvent() { VOCA_REPORT(cudaEventDestroy(event_)); }
  TimingEvent(const TimingEvent&) = delete;
  TimingEvent& operator=(const TimingEvent&) = delete;
  [[nodiscard]] cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Times work in a CUDA graph, as in a training step: the overhead of what a GEMM queues besides its kernel
/// differs from that in a stream.
class GraphTimer {
 public:
  GraphTimer() { VOCA_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  ~GraphTimer() { VOCA_REPORT(cudaStreamDestroy(stream_)); }
  GraphTimer(const GraphTimer&) = delete;
  GraphTimer& operator=(const GraphTimer&) = delete;

  /// Minimum over several launches of work(stream), in µs; infinite if it returns false or cannot be
  /// captured.
  template <typename Work>
  [[nodiscard]] double time(Work work) const {
    double least = std::numeric_limits<double>::infinity();
    bool done = false;
    cudaGraph_t graph = capture(stream_, [&] { done = work(stream_); });
    if (graph == nullptr) return least;
    if (done) {
      cudaGraphExec_t executable = nullptr;
      VOCA_CUDA(cudaGraphInstantiate(&executable, graph, 0));
      for (int i = 0; i < kTimes; ++i) {
        VOCA_CUDA(cudaEventRecord(begin_.get(), stream_));
        VOCA_CUDA(cudaGraphLaunch(executable, stream_));
        VOCA_CUDA(cudaEventRecord(end_.get(), stream_));
        VOCA_CUDA(cudaEventSynchronize(end_.get()));
        float milliseconds = 0;
        VOCA_CUDA(cudaEventElapsedTime(&milliseconds, begin_.get(), end_.get()));
        least = std::min(least, 1000.0 * static_cast<double>(milliseconds));
      }
      VOCA_CUDA(cudaGraphExecDestroy(executable));
    }
    VOCA_CUDA(cudaGraphDestroy(graph));
    return least;
  }

 private:
  /// The first launch of a graph is slower than later ones.
  static constexpr int kTimes = 2;

  cudaStream_t stream_ = nullptr;
  TimingEvent begin_;
  TimingEvent end_;
};

/// Operands of a GEMM in the memory in which candidates are timed, as several sets, so that a repeat does not
/// find its operands in the GPU's cache.
class RotatingOperands {
 public:
  RotatingOperands(const LibraryGemm& gemm, std::byte* memory, std::size_t memory_bytes,
                   std::size_t cache_bytes)
      : gemm_(gemm), memory_(memory) {
    const auto span = [&](std::int64_t rows, std::int64_t ld, std::int64_t stride) {
      const std::int64_t elements = (gemm.batch - 1) * stride + rows * ld;
      return align(static_cast<std::size_t>(elements) * size_of(gemm.dtype));
    };
    const bool ta = gemm.transpose_a == kernels::Transpose::kYes;
    const bool tb = gemm.transpose_b == kernels::Transpose::kYes;
    b_at_ = span(ta ? gemm.k : gemm.m, gemm.lda, gemm.stride_a);
    c_at_ = b_at_ + span(tb ? gemm.n : gemm.k, gemm.ldb, gemm.stride_b);
    bias_at_ = c_at_ + span(gemm.m, gemm.ldc, gemm.stride_c);
    set_bytes_ = bias_at_ + align(static_cast<std::size_t>(gemm.n) * size_of(gemm.dtype));
    sets_ = std::min(memory_bytes / set_bytes_, 2 * cache_bytes / set_bytes_ + 2);
  }
  /// 0 if one set does not fit.
  [[nodiscard]] std::size_t sets() const { return sets_; }
  [[nodiscard]] std::size_t bytes() const { return sets_ * set_bytes_; }
  [[nodiscard]] std::size_t result_bytes() const { return bias_at_ - c_at_; }
  [[nodiscard]] LibraryGemm operator[](std::size_t i) const {
    std::byte* const base = memory_ + i % sets_ * set_bytes_;
    LibraryGemm placed = gemm_;
    placed.a = base;
    placed.b = base + b_at_;
    placed.c = base + c_at_;
    if (placed.add_bias) placed.bias = base + bias_at_;
    return placed;
  }

 private:
  static std::size_t align(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

  static constexpr std::size_t kAlignment = 256;

  LibraryGemm gemm_;
  std::byte* memory_;
  std::size_t b_at_ = 0;
  std::size_t c_at_ = 0;
  std::size_t bias_at_ = 0;
  std::size_t set_bytes_ = 0;
  std::size_t sets_ = 0;
};

}  // namespace voca::engine::cuda
