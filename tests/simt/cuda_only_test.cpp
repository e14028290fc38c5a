// Tests that need a real GPU; reported as skipped if there is none.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/base/random.h"
#include "engine/comm/communicator.h"
#include "engine/comm/nccl_communicator.h"
#include "engine/core/cuda_device.h"
#include "engine/core/host_tensor.h"
#include "engine/cuda/communication_stream.h"
#include "engine/ops/ops.h"
#include "engine/rendezvous/memory_store.h"
#include "engine/trainer/memory_plan.h"
#include "engine/trainer/optimizer.h"
#include "kernels/cpu/half.h"
#include "model/crossmodal_transformer.h"
#include "model/tasks/detection.h"
#include "tests/engine/comm/support/single_communicator.h"
#include "tests/simt/tested_device.h"

namespace voca::simt::host {
namespace {

/// Skips all tests of this program if there is no device.
class NeedsADevice : public ::testing::Environment {
 public:
  void SetUp() override {
    const engine::CudaAvailability cuda = engine::cuda_availability();
    if (cuda.devices == 0) GTEST_SKIP() << "no CUDA device: " << cuda.reason;
  }
};
const ::testing::Environment* const kNeedsADevice =
    ::testing::AddGlobalTestEnvironment(new NeedsADevice);  // NOLINT: GoogleTest owns it

/// Array of numbers on a device, and functions that queue work to set them.
class Together {
 public:
  static constexpr std::int64_t kElements = 1024;

  explicit Together(engine::Device& device)
      : device_(device),
        block_(device.allocate("numbers", kElements * sizeof(float))),
        arena_(block_.data(), block_.bytes(), device.kind()),
        numbers_(arena_.allocate("numbers", {kElements}, engine::DType::kF32)) {}

  [[nodiscard]] engine::Stream stream() const { return device_.compute_stream(); }
  void fill(double value, std::int64_t first, std::int64_t count) {
    engine::Context context{.arena = arena_, .stream = stream()};
    engine::ops::fill(context, value, numbers_.rows(first, count));
  }
  [[nodiscard]] float at(std::int64_t i) const {
    return engine::HostTensor(device_, numbers_).tensor().as<float>()[i];
  }

 private:
  engine::Device& device_;
  engine::Device::Block block_;
  engine::Arena arena_;
  engine::Tensor numbers_;
};

// Arguments, addresses, sizes and even the number of operations may change between calls.
TEST(QueueTogether, DoesEachTimeWhatTheWorkSaysNow) {
  const auto device = make_tested_device();
  Together numbers(*device);
  for (int turn = 1; turn <= 9; ++turn) {
    device->queue_together(7, numbers.stream(), [&] {
      numbers.fill(turn, 0, std::int64_t{100} * turn);
      if (turn % 3 == 0) numbers.fill(-turn, 50, turn);
    });
    // Queue a different kind of work in between.
    device->queue_together(8, numbers.stream(), [&] { numbers.fill(1000 + turn, 950, 50); });
    EXPECT_EQ(numbers.at(0), static_cast<float>(turn));
    EXPECT_EQ(numbers.at(50), static_cast<float>(turn % 3 == 0 ? -turn : turn));
    EXPECT_EQ(numbers.at(100 * turn - 1), static_cast<float>(turn));
    EXPECT_EQ(numbers.at(950), static_cast<float>(1000 + turn));
  }
}

// Graphs replay memsets of four bytes with a kernel, whatever the element size, and other memsets unchanged.
TEST(QueueTogether, SetsMemoryToTheSameBytes) {
  const auto device = make_tested_device();
  const auto block = device->allocate("bytes", 64);
  const engine::Stream stream = device->compute_stream();
  for (int turn = 1; turn <= 4; ++turn) {
    device->queue_together(1, stream, [&] {
      ASSERT_EQ(cudaMemsetAsync(block.data(), 16 * turn + 1, 4, stream), cudaSuccess);
      ASSERT_EQ(cudaMemsetAsync(block.data() + 4, 16 * turn + 2, 12, stream), cudaSuccess);
      ASSERT_EQ(cudaMemsetAsync(block.data() + 16, 16 * turn + 3, 4, stream), cudaSuccess);
    });
    std::vector<std::byte> bytes(24);
    device->copy_to_host(bytes.data(), block.data(), bytes.size(), stream);
    device->synchronize(stream);
    for (std::size_t i = 0; i < 20; ++i) {
      const int set = i < 4 ? 1 : i < 16 ? 2 : 3;
      EXPECT_EQ(std::to_integer<int>(bytes[i]), 16 * turn + set) << "byte " << i << ", turn " << turn;
    }
    for (std::size_t i = 20; i < 24; ++i) EXPECT_EQ(std::to_integer<int>(bytes[i]), 0);
  }
}

TEST(QueueTogether, QueuesPieceByPieceWhatCannotBeCaptured) {
  const auto device = make_tested_device();
  Together numbers(*device);
  for (int turn = 1; turn <= 4; ++turn) {
    device->queue_together(1, numbers.stream(), [&] {
      numbers.fill(turn, 0, 10);
      device->synchronize(numbers.stream());  // illegal during capture
      numbers.fill(10 * turn, 10, 10);
    });
    EXPECT_EQ(numbers.at(9), static_cast<float>(turn));
    EXPECT_EQ(numbers.at(10), static_cast<float>(10 * turn));
  }
}

TEST(QueueTogether, AFailureOfTheWorkIsTheCallersAndTheNextTimeIsAsEver) {
  const auto device = make_tested_device();
  Together numbers(*device);
  for (int turn = 1; turn <= 5; ++turn) {
    const auto work = [&] {
      numbers.fill(turn, 0, 10);
      if (turn == 3) throw std::runtime_error("of the work");
    };
    if (turn == 3) {
      EXPECT_THROW(device->queue_together(1, numbers.stream(), work), std::runtime_error);
      EXPECT_EQ(numbers.at(0), 2) << "nothing of it has run";
    } else {
      device->queue_together(1, numbers.stream(), work);
      EXPECT_EQ(numbers.at(0), static_cast<float>(turn));
    }
  }
}

// With one rank, NCCL queues nothing for an in-place all-reduce. Of the collectives here, only the
// out-of-place all-gather queues work: a copy.
TEST(Nccl, OfAWorldOfOneQueuesACopyAndNoSumInACapturedGraph) {
  if (!engine::with_nccl()) GTEST_SKIP() << "built without NCCL's header";
  const auto device = make_tested_device();
  engine::MemoryStore store;
  const auto ranks = engine::make_nccl_communicator(store, engine::testing::make_single_communicator(), {});
  constexpr std::int64_t kElements = 1000;
  const auto place = [&](const engine::Device::Block& block) {
    return engine::Tensor{.data = block.data(),
                          .shape = {kElements},
                          .dtype = engine::DType::kF32,
                          .device = device->kind(),
                          .name = "gradients"};
  };
  const auto block = device->allocate("gradients", kElements * sizeof(float));
  const auto copy = device->allocate("gathered", kElements * sizeof(float));
  const engine::Tensor gradients = place(block);
  const engine::Tensor gathered = place(copy);
  std::vector<float> numbers(kElements);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i);
  write_to(*device, gradients, 0, numbers.data(), gradients.bytes());
  const engine::Stream stream = device->compute_stream();
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ranks->all_reduce_sum("gradients", gradients, stream);
  ranks->all_gather("gradients", gradients, gathered, stream);
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  std::size_t nodes = 0;
  ASSERT_EQ(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
  EXPECT_GE(nodes, 1U);
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  for (const engine::Tensor& tensor : {gradients, gathered}) {
    const engine::HostTensor host(*device, tensor);
    for (std::int64_t i = 0; i < kElements; ++i)
      ASSERT_EQ(host.tensor().as<float>()[i], numbers[static_cast<std::size_t>(i)]);
  }
  EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

/// Small network, one batch and an optimiser, with NCCL all-reduces of gradients and losses: a full GPU
/// training step of a rank, except that NCCL with one rank queues nothing in place.
class NcclStep {
 public:
  NcclStep(engine::Device& device, engine::DType dtype)
      : device_(device),
        model_(model::make_crossmodal_transformer(network(), {.use_contrastive = true})),
        workspace_(*model_, {.compute_type = dtype, .train_batch = kBatch}, device),
        optimizer_({.adamw = {.weight_decay = 1e-2}, .max_grad_norm = 1}, workspace_),
        ranks_(make_communicator()),
        stream_(engine::make_cuda_communication_stream()),
        buckets_(*ranks_, workspace_.parameters().gradients(), *stream_, device.compute_stream(),
                 {.bucket_bytes = std::size_t{1} << 16U}) {
    workspace_.parameters().initialise(1);
    batch_.size = kBatch;
    int stream = 0;
    for (const engine::TensorSpec& input : model_->signature().batch.inputs) {
      batch_.inputs.push_back(place(input.of(kBatch), dtype, input.name.c_str()));
      fill(batch_.inputs.at(input.name), stream++);
    }
    batch_.targets.push_back(place({kBatch}, engine::DType::kI32, model::kLabel));
    std::vector<std::int32_t> labels(kBatch);
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int32_t>(i % 2);
    const engine::Tensor& target = batch_.targets.at(model::kLabel);
    write_to(device_, target, 0, labels.data(), target.bytes());
  }

  void queue() {
    engine::Context context = workspace_.context();
    context.communicator = ranks_.get();
    context.gradients = &buckets_;
    optimizer_.start_step();
    model_->forward_backward(context, workspace_.parameters(), batch_, {.seed = 5, .step = 7},
                             optimizer_.gradient_scale(1), workspace_.outputs(kBatch), workspace_.losses(0));
    buckets_.finish();
    ranks_->all_reduce_sum("losses", workspace_.losses(), context.stream);
    optimizer_.measure_norm();
    optimizer_.update(1e-3);
  }

  /// All bytes that a step modifies.
  [[nodiscard]] std::string image() const {
    std::string bytes;
    const engine::ParameterStore& parameters = workspace_.parameters();
    for (const engine::Tensor& tensor : {parameters.gradients(), parameters.masters(), parameters.exp_avgs(),
                                         parameters.exp_avg_sqs(), workspace_.losses()}) {
      const engine::HostTensor host(device_, tensor);
      bytes.append(static_cast<const char*>(host.tensor().data), tensor.bytes());
    }
    return bytes;
  }
  [[nodiscard]] std::int64_t updates() const { return optimizer_.state().steps; }

 private:
  static constexpr std::int64_t kBatch = 4;

  static model::ModelConfig network() {
    model::ModelConfig config;
    config.visual_dim = 64;
    config.audio_dim = 64;
    config.hidden = 128;
    config.num_layers = 2;
    config.num_heads = 2;
    config.seq_len = 48;
    config.dropout = 0.1;
    return config;
  }

  std::unique_ptr<engine::Communicator> make_communicator() {
    return engine::make_nccl_communicator(store_, engine::testing::make_single_communicator(), {});
  }
  engine::Tensor place(const engine::Shape& shape, engine::DType dtype, const char* name) {
    engine::Tensor tensor{.shape = shape, .dtype = dtype, .device = device_.kind(), .name = name};
    blocks_.push_back(device_.allocate("batch", tensor.bytes()));
    tensor.data = blocks_.back().data();
    return tensor;
  }
  void fill(const engine::Tensor& tensor, int input) {
    engine::RandomStream random(4, engine::RandomPurpose::kSynthetic, static_cast<std::uint64_t>(input));
    std::vector<std::byte> bytes(tensor.bytes());
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      const auto number = static_cast<float>(random.normal());
      if (tensor.dtype == engine::DType::kF32) {
        reinterpret_cast<float*>(bytes.data())[i] = number;
      } else {
        reinterpret_cast<std::uint16_t*>(bytes.data())[i] = kernels::cpu::float_to_bfloat16(number);
      }
    }
    write_to(device_, tensor, 0, bytes.data(), bytes.size());
  }

  engine::Device& device_;
  std::unique_ptr<engine::Model> model_;
  engine::Workspace workspace_;
  engine::Optimizer optimizer_;
  engine::MemoryStore store_;
  std::unique_ptr<engine::Communicator> ranks_;
  std::unique_ptr<engine::CommunicationStream> stream_;
  engine::GradientBuckets buckets_;
  std::vector<engine::Device::Block> blocks_;
  engine::Batch batch_;
};

// Captures a whole step in a CUDA graph, including the events that order gradient all-reduces relative to
// backward. A replay gives the same bits as a queued step.
TEST(Nccl, CanBeAskedForSumsWithinACapturedTrainingStep) {
  if (!engine::with_nccl()) GTEST_SKIP() << "built without NCCL's header";
  const auto device = make_tested_device();
  const engine::Stream stream = device->compute_stream();
  for (const engine::DType dtype : {engine::DType::kF32, engine::DType::kBF16}) {
    std::string queued;
    {
      NcclStep step(*device, dtype);
      for (int i = 0; i < 3; ++i) step.queue();
      queued = step.image();
    }
    NcclStep step(*device, dtype);
    step.queue();  // loads kernels, which is illegal during capture
    device->synchronize(stream);
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    step.queue();
    cudaGraph_t graph = nullptr;
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    std::size_t nodes = 0;
    ASSERT_EQ(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
    EXPECT_GT(nodes, 50U);
    EXPECT_EQ(step.updates(), 1) << "a capture runs nothing";
    cudaGraphExec_t executable = nullptr;
    ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    for (int i = 0; i < 2; ++i) ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    device->synchronize(stream);
    EXPECT_EQ(step.updates(), 3);
    EXPECT_TRUE(step.image() == queued);
    EXPECT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  }
}

}  // namespace
}  // namespace voca::simt::host
