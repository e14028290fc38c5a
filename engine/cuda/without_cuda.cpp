#include "engine/base/error.h"
#include "engine/core/cuda_device.h"
#include "engine/cuda/communication_stream.h"

// Stand-in for engine/cuda/ in a build without a CUDA toolkit.

namespace voca::engine {

bool built_with_cuda() {
  return false;
}

CudaAvailability cuda_availability() {
  return {.reason = "built without CUDA: no toolkit was found when this program was built"};
}

std::unique_ptr<Device> make_cuda_device(int /*index*/, const CudaDeviceOptions& /*options*/) {
  throw UsageError("--device cuda: {}", cuda_availability().reason);
}

std::string cuda_device_uuid() {
  return {};
}

std::unique_ptr<CommunicationStream> make_cuda_communication_stream() {
  throw UsageError("--device cuda: this build has no CUDA");
}

}  // namespace voca::engine
