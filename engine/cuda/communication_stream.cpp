#include "engine/cuda/communication_stream.h"

#include <cuda_runtime_api.h>
#include <spdlog/spdlog.h>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

void check(cudaError_t result, const char* call) {
  if (result == cudaSuccess) return;
  throw Error(ExitCode::kIo,
              fmt::format("the stream of the gradients' sums: {}: {}", call, ::cudaGetErrorString(result)));
}

class CudaCommunicationStream final : public CommunicationStream {
 public:
  CudaCommunicationStream() {
    int lowest = 0;
    int highest = 0;
    check(::cudaDeviceGetStreamPriorityRange(&lowest, &highest), "cudaDeviceGetStreamPriorityRange");
    check(::cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest),
          "cudaStreamCreateWithPriority");
    check(::cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
  ~CudaCommunicationStream() override {
    const cudaError_t event = event_ == nullptr ? cudaSuccess : ::cudaEventDestroy(event_);
    const cudaError_t stream = ::cudaStreamDestroy(stream_);
    for (const cudaError_t result : {event, stream}) {
      if (result == cudaSuccess) continue;
      spdlog::error("the stream of the gradients' sums cannot be given back: {}",
                    ::cudaGetErrorString(result));
    }
  }
  CudaCommunicationStream(const CudaCommunicationStream&) = delete;
  CudaCommunicationStream& operator=(const CudaCommunicationStream&) = delete;

  [[nodiscard]] Stream stream() const override { return stream_; }
  void wait_for(Stream compute) override { order(compute, stream_); }
  void hold_up(Stream compute) override { order(stream_, compute); }

 private:
  // A wait refers to the latest record, so one event can be reused for every ordering.
  void order(cudaStream_t first, cudaStream_t second) {
    check(::cudaEventRecord(event_, first), "cudaEventRecord");
    check(::cudaStreamWaitEvent(second, event_, 0), "cudaStreamWaitEvent");
  }

  cudaStream_t stream_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

}  // namespace

std::unique_ptr<CommunicationStream> make_cuda_communication_stream() {
  return std::make_unique<CudaCommunicationStream>();
}

}  // namespace voca::engine
