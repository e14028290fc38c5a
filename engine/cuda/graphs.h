#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <unordered_map>

namespace voca::engine::cuda {

/// Captures what `work` queues on `stream`, without running it. The caller destroys the graph. Returns null
/// if part of it cannot be captured. Exceptions of `work` itself are rethrown, and the stream is left as it
/// was.
[[nodiscard]] cudaGraph_t capture(cudaStream_t stream, const std::function<void()>& work);

/// Queues recurring work as CUDA graphs: each call captures it, which costs the host no more than queueing
/// it, updates the executable graph of its kind (arguments, addresses, sizes) and queues everything by one
/// launch. Nothing of a kind needs to stay constant, including dropout's counter and the batch's address.
/// Used by a single thread.
class Graphs {
 public:
  Graphs() = default;
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;
  ~Graphs();

  /// Implements Device::queue_together. Once a capture fails, all work is queued call by call.
  void queue(std::uint64_t kind, cudaStream_t stream, const std::function<void()>& work);

 private:
  /// By kind; null after the first, uncaptured time.
  std::unordered_map<std::uint64_t, cudaGraphExec_t> executables_;
  bool can_capture_ = true;
};

}  // namespace voca::engine::cuda
