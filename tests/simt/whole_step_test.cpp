#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/base/random.h"
#include "engine/core/model.h"
#include "engine/ops/ops.h"
#include "kernels/adamw.h"
#include "model/crossmodal_transformer.h"
#include "model/tasks/detection.h"
#include "tests/simt/host_device.h"
#include "tests/simt/relative_error.h"

// Training step of a small network with CUDA kernels run on the CPU, compared with the CPU backend. Dispatch,
// dry run, arena and masks are the same as on a GPU. Dropout is on.

namespace voca::simt::host {
namespace {

using engine::DeviceKind;
using engine::DType;
using engine::Tensor;

constexpr std::int64_t kBatch = 3;
// At this temperature, the contrastive loss does not amplify 16-bit rounding.
constexpr model::LossConfig kLosses{.label_smoothing = 0.1, .use_contrastive = true, .temperature = 1};

model::ModelConfig small_network(model::CrossAttention cross, std::int64_t hidden, std::int64_t heads,
                                 std::int64_t seq_len = 20) {
  model::ModelConfig config;
  config.visual_dim = 24;
  config.audio_dim = 40;
  config.hidden = hidden;
  config.num_layers = 2;
  config.num_heads = heads;
  config.seq_len = seq_len;
  config.dropout = 0.1;
  config.cross_attention = cross;
  config.positional_encoding = model::PositionalEncoding::kLearned;
  return config;
}

template <typename T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return DType::kBF16;
  if constexpr (std::is_same_v<T, __half>) return DType::kF16;
  return DType::kF32;
}

/// Network, one batch and all memory on one device. Initial weights and batch are rounded to V, and so are
/// the same for every T.
template <typename T, typename V = T>
class StepRun {
 public:
  StepRun(const model::ModelConfig& config, DeviceKind kind,
          model::Activations activations = model::Activations::kKeep)
      : products_(kind == DeviceKind::kCuda ? std::make_unique<HostGemmLibrary>() : nullptr),
        device_(kind == DeviceKind::kCuda ? std::make_unique<HostDevice>() : engine::make_cpu_device(1)),
        model_(model::make_crossmodal_transformer(config, kLosses, activations)),
        parameters_(model_->parameters(), dtype_of<T>(), true, device_.get()) {
    const engine::ArenaPlan plan =
        engine::plan_training(*model_, dtype_of<T>(), kBatch, {kind, products_.get()});
    arena_block_ = device_->allocate("arena", plan.bytes);
    std::memset(arena_block_.data(), 0xFF, plan.bytes);  // NaN, to expose reads of unwritten memory
    arena_ = engine::Arena(arena_block_.data(), plan.bytes, kind);
    outputs_.push_back(place(model::kLogits, {kBatch, 1}, dtype_of<T>()));
    losses_ = place("losses", {3}, DType::kF32);
    norm_ = place("norm", {1}, DType::kF32);
    state_ = place("optimizer state", {sizeof(kernels::OptimizerState)}, DType::kU8);
    *static_cast<kernels::OptimizerState*>(state_.data) = {.lr = 1e-3};
    batch_.size = kBatch;
    for (const engine::TensorSpec& input : model_->signature().batch.inputs)
      batch_.inputs.push_back(place(input.name.c_str(), input.of(kBatch), dtype_of<T>()));
    batch_.targets.push_back(place(model::kLabel, {kBatch}, DType::kI32));
    fill_parameters();
    fill_batch();
  }

  /// One step: zeroes the gradients, runs forward and backward, computes the norm and updates the weights.
  void step(std::uint64_t seed) {
    engine::Context context{.arena = arena_, .gemm_library = products_.get()};
    engine::ops::fill(context, 0, parameters_.gradients());
    model_->forward_backward(context, parameters_, batch_, {.seed = seed, .step = 7}, {}, outputs_, losses_);
    engine::ops::gradient_norm(context, parameters_.gradients(), norm_);
    engine::ops::adamw(context, {.options = {.weight_decay = 1e-2},
                                 .max_norm = 0.5,
                                 .state = state_,
                                 .norm = norm_,
                                 .losses = losses_,
                                 .gradient = parameters_.gradients(),
                                 .master = parameters_.masters(),
                                 .exp_avg = parameters_.exp_avgs(),
                                 .exp_avg_sq = parameters_.exp_avg_sqs(),
                                 .weights = parameters_.weights()});
  }

  [[nodiscard]] const engine::ParameterStore& parameters() const { return parameters_; }
  [[nodiscard]] std::vector<double> logits() const { return values<T>(outputs_[0]); }
  [[nodiscard]] std::vector<double> losses() const { return values<float>(losses_); }
  [[nodiscard]] std::vector<double> gradient(int id) const { return values<T>(parameters_.gradient(id)); }
  [[nodiscard]] std::vector<double> master(int id) const { return values<float>(parameters_.master(id)); }
  [[nodiscard]] std::vector<double> weight(int id) const { return values<T>(parameters_.weight(id)); }
  /// All bytes that a step modifies.
  [[nodiscard]] std::string image() const {
    std::string bytes;
    for (const Tensor* tensor : {&parameters_.gradients(), &parameters_.masters(), &parameters_.exp_avgs(),
                                 &parameters_.exp_avg_sqs(), &losses_, &outputs_[0]})
      bytes.append(static_cast<const char*>(tensor->data), tensor->bytes());
    return bytes;
  }

 private:
  template <typename U>
  static std::vector<double> values(const Tensor& tensor) {
    const U* data = static_cast<const U*>(tensor.data);
    std::vector<double> out(static_cast<std::size_t>(tensor.elements()));
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<double>(static_cast<float>(data[i]));
    return out;
  }

  Tensor place(const char* name, const engine::Shape& shape, DType dtype) {
    Tensor tensor{.shape = shape, .dtype = dtype, .device = device_->kind(), .name = name};
    blocks_.push_back(device_->allocate(name, tensor.bytes()));
    tensor.data = blocks_.back().data();
    return tensor;
  }

  static float rounded(double value) { return static_cast<float>(static_cast<V>(static_cast<float>(value))); }

  void fill_parameters() {
    for (int id = 0; id < parameters_.count(); ++id) {
      engine::RandomStream random(3, engine::RandomPurpose::kInitialisation, static_cast<std::uint64_t>(id));
      const Tensor weight = parameters_.weight(id);
      const Tensor master = parameters_.master(id);
      const bool is_scale = parameters_.specs()[static_cast<std::size_t>(id)].initializer.value == 1;
      for (std::int64_t i = 0; i < weight.elements(); ++i) {
        const float value = rounded((is_scale ? 1 : 0) + 0.1 * random.normal());
        static_cast<float*>(master.data)[i] = value;
        static_cast<T*>(weight.data)[i] = static_cast<T>(value);
      }
    }
  }
  void fill_batch() {
    engine::RandomStream random(4, engine::RandomPurpose::kSynthetic, 0);
    for (int input = 0; input < 2; ++input) {
      const Tensor& tensor = batch_.inputs[static_cast<std::size_t>(input)];
      for (std::int64_t i = 0; i < tensor.elements(); ++i)
        static_cast<T*>(tensor.data)[i] = static_cast<T>(rounded(random.normal()));
    }
    for (std::int64_t i = 0; i < kBatch; ++i)
      static_cast<std::int32_t*>(batch_.targets[0].data)[i] = static_cast<std::int32_t>(i % 2);
  }

  std::unique_ptr<HostGemmLibrary> products_;
  std::unique_ptr<engine::Device> device_;
  std::unique_ptr<engine::Model> model_;
  engine::ParameterStore parameters_;
  engine::Device::Block arena_block_;
  engine::Arena arena_;
  std::vector<engine::Device::Block> blocks_;
  engine::Batch batch_;
  engine::TensorList outputs_;
  Tensor losses_;
  Tensor norm_;
  Tensor state_;
};

// Largest relative error over all gradients. Skips tensors whose gradient is negligible compared with the
// largest: the gradient of a key bias is only rounding error.
template <typename T, typename V>
double worst_gradient(const StepRun<T>& got, const StepRun<float, V>& want) {
  std::vector<double> sizes;
  for (int id = 0; id < want.parameters().count(); ++id) {
    double square = 0;
    for (const double g : want.gradient(id)) square += g * g;
    sizes.push_back(std::sqrt(square));
  }
  const double largest = *std::max_element(sizes.begin(), sizes.end());
  double worst = 0;
  for (int id = 0; id < want.parameters().count(); ++id) {
    if (sizes[static_cast<std::size_t>(id)] > 1e-3 * largest)
      worst = std::max(worst, relative_error(got.gradient(id), want.gradient(id)));
  }
  return worst;
}

struct Case {
  model::CrossAttention cross;
  std::int64_t hidden;
  std::int64_t heads;
  std::uint64_t seed;  ///< seed of the masks
};
// Head size 32 is fused for 16-bit types; 16 and 12 take the unfused path, 12 with rows that are not 16-byte
// aligned.
const Case kCases[] = {{model::CrossAttention::kA2v, 64, 2, 3},
                       {model::CrossAttention::kBidirectional, 64, 4, 8},
                       {model::CrossAttention::kA2v, 36, 3, 1}};

TEST(WholeStep, InFloatEqualsTheCpuWithDropoutOn) {
  for (const Case& c : kCases) {
    const model::ModelConfig config = small_network(c.cross, c.hidden, c.heads);
    StepRun<float> cpu(config, DeviceKind::kCpu);
    StepRun<float> cuda(config, DeviceKind::kCuda);
    cpu.step(c.seed);
    cuda.step(c.seed);
    EXPECT_LT(relative_error(cuda.losses(), cpu.losses()), 1e-5);
    EXPECT_LT(relative_error(cuda.logits(), cpu.logits()), 1e-4);
    EXPECT_LT(worst_gradient(cuda, cpu), 1e-4);
    for (int id = 0; id < cpu.parameters().count(); ++id) {
      EXPECT_LT(relative_error(cuda.master(id), cpu.master(id)), 1e-3)
          << cpu.parameters().specs()[static_cast<std::size_t>(id)].name;
    }
  }
}

// If rounding moves a maximum over time to another frame, its gradient moves too. These seeds avoid that:
// over 24 seeds per case, the worst gradient error of bf16 was up to 0.19, and up to 0.028, 0.034 and 0.071
// with mean pooling instead of mean and max. Sequences are short to make such moves rare.
template <typename T>
void expect_near_float(double logits_error, double gradient_error) {
  for (const Case& c : kCases) {
    const model::ModelConfig config = small_network(c.cross, c.hidden, c.heads, 6);
    StepRun<float, T> cpu(config, DeviceKind::kCpu);
    StepRun<T> cuda(config, DeviceKind::kCuda);
    cpu.step(c.seed);
    cuda.step(c.seed);
    EXPECT_LT(relative_error(cuda.losses(), cpu.losses()), logits_error);
    EXPECT_LT(relative_error(cuda.logits(), cpu.logits()), logits_error);
    EXPECT_LT(worst_gradient(cuda, cpu), gradient_error);
    for (int id = 0; id < cpu.parameters().count(); ++id) {
      for (std::size_t i = 0; i < cuda.weight(id).size(); i += 17) {
        ASSERT_EQ(
            cuda.weight(id)[i],
            static_cast<double>(static_cast<float>(static_cast<T>(static_cast<float>(cuda.master(id)[i])))))
            << "the weights are the masters, rounded";
      }
    }
  }
}

TEST(WholeStep, InSixteenBitsIsNearTheCpuWithDropoutOn) {
  expect_near_float<__nv_bfloat16>(2e-2, 4e-2);
  expect_near_float<__half>(2.5e-3, 5e-3);
}

TEST(WholeStep, GivesTheSameBitsTwiceAndWithActivationsRecomputed) {
  const model::ModelConfig config = small_network(model::CrossAttention::kBidirectional, 64, 2);
  StepRun<__nv_bfloat16> one(config, DeviceKind::kCuda);
  StepRun<__nv_bfloat16> other(config, DeviceKind::kCuda);
  StepRun<__nv_bfloat16> recomputed(config, DeviceKind::kCuda, model::Activations::kRecompute);
  one.step(3);
  other.step(3);
  recomputed.step(3);
  EXPECT_EQ(one.image(), other.image());
  EXPECT_EQ(one.image(), recomputed.image());
}

}  // namespace
}  // namespace voca::simt::host
