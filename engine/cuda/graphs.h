#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <unordered_map>

namespace voca::engine::cuda {

/// What `work` queues on `stream`, for the caller to destroy; null when something in it cannot be captured.
/// Nothing of it has run. What `work` throws of its own is thrown on, and the stream is as it was.
[[nodiscard]] cudaGraph_t capture(cudaStream_t stream, const std::function<void()>& work);

/// Work that is queued again and again, as CUDA graphs: each time it is captured, which costs the host no
/// more than queueing it, the graph of its kind takes over what has changed (arguments, places, sizes), and
/// one launch queues it all. Nothing of a kind need therefore stay as it was, dropout's counter and the
/// batch's place included. Used by one thread.
class Graphs {
 public:
  Graphs() = default;
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;
  ~Graphs();

  /// Device::queue_together. What cannot be captured is queued piece by piece, then and from then on.
  void queue(std::uint64_t kind, cudaStream_t stream, const std::function<void()>& work);

 private:
  /// By kind; null once it has been queued piece by piece.
  std::unordered_map<std::uint64_t, cudaGraphExec_t> executables_;
  bool can_capture_ = true;
};

}  // namespace voca::engine::cuda
