// What only a GPU can show. Skipped, visibly, where there is none.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "engine/cuda_device.h"
#include "engine/distributed/communicator.h"
#include "engine/distributed/memory_store.h"
#include "engine/distributed/nccl_communicator.h"
#include "engine/host_tensor.h"
#include "tests/simt/tested_device.h"

namespace voca::simt::host {
namespace {

/// Without a device no test of this program runs.
class NeedsADevice : public ::testing::Environment {
 public:
  void SetUp() override {
    const engine::CudaAvailability cuda = engine::cuda_availability();
    if (cuda.devices == 0) GTEST_SKIP() << "no CUDA device: " << cuda.reason;
  }
};
const ::testing::Environment* const kNeedsADevice =
    ::testing::AddGlobalTestEnvironment(new NeedsADevice);  // NOLINT: GoogleTest owns it

TEST(Nccl, OfAWorldOfOneSumsInACapturedStep) {
  if (!engine::with_nccl()) GTEST_SKIP() << "built without NCCL's header";
  const auto device = make_tested_device();
  engine::MemoryStore store;
  const auto ranks = engine::make_nccl_communicator(store, engine::make_single_communicator(), {});
  constexpr std::int64_t kElements = 1000;
  const auto block = device->allocate("gradients", kElements * sizeof(float));
  const engine::Tensor gradients{.data = block.data(),
                                 .shape = {kElements},
                                 .dtype = engine::DType::kF32,
                                 .device = device->kind(),
                                 .name = "gradients"};
  std::vector<float> numbers(kElements);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i);
  write_to(*device, gradients, 0, numbers.data(), gradients.bytes());
  auto* const stream = static_cast<cudaStream_t>(device->compute_stream());
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ranks->all_reduce_sum("gradients", gradients, stream);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  const engine::HostTensor host(*device, gradients);
  for (std::int64_t i = 0; i < kElements; ++i)
    ASSERT_EQ(host.tensor().as<float>()[i], numbers[static_cast<std::size_t>(i)]);
  EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

}  // namespace
}  // namespace voca::simt::host
