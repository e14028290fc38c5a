// One training step on the CPU: forward, backward, clip, AdamW, from a batch in memory. What PyTorch does in
// the same run of benchmarks/compare_step.sh is benchmarks/rivals/step_cpu.py. Prints one line of JSON.

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cxxopts.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "benchmarks/kernels/support/roof.h"
#include "benchmarks/support/statistics.h"
#include "engine/device.h"
#include "engine/ops.h"
#include "engine/random.h"
#include "kernels/adamw.h"
#include "kernels/cpu/features.h"
#include "model/crossmodal_transformer.h"

namespace {

using namespace voca;
using benchmarks::Clock;

// The batch and everything a step needs, allocated once.
class Step {
 public:
  Step(const model::ModelConfig& config, std::int64_t batch_size, int threads)
      : device_(engine::make_cpu_device(threads)),
        model_(model::make_crossmodal_transformer(config, {.label_smoothing = 0.1, .use_contrastive = true})),
        parameters_(model_->parameters(), engine::DType::kF32, true, device_.get()) {
    parameters_.initialise(1);
    const std::size_t bytes = engine::plan_training(*model_, engine::DType::kF32, batch_size).bytes;
    activations_ = device_->allocate("activations", bytes);
    arena_ = std::make_unique<engine::Arena>(activations_.data(), bytes, engine::DeviceKind::kCpu);
    batch_.size = batch_size;
    for (std::size_t i = 0; i < batch_.inputs.size(); ++i) {
      batch_.inputs.at(i) =
          tensor("input", model_->input_shape(static_cast<int>(i), batch_size), engine::DType::kF32);
    }
    engine::RandomStream random(1, engine::RandomPurpose::kSynthetic, 0);
    for (const engine::Tensor& input : batch_.inputs) {
      for (std::int64_t i = 0; i < input.elements(); ++i)
        input.as<float>()[i] = static_cast<float>(random.normal());
    }
    batch_.labels = tensor("labels", {batch_size}, engine::DType::kI32);
    for (std::int64_t i = 0; i < batch_size; ++i)
      batch_.labels.as<std::int32_t>()[i] = static_cast<std::int32_t>(i % 2);
    logits_ = tensor("logits", {batch_size, 1}, engine::DType::kF32);
    losses_ = tensor("losses", {engine::kLossCount}, engine::DType::kF32);
    norm_ = tensor("norm", {1}, engine::DType::kF32);
    state_ = tensor("optimizer state", {sizeof(kernels::OptimizerState)}, engine::DType::kU8);
    *static_cast<kernels::OptimizerState*>(state_.data) = {.lr = 3e-4};
  }

  void run() {
    engine::Context context{*arena_};
    ++step_;
    engine::ops::fill(context, 0, parameters_.gradients());
    model_->forward_backward(context, parameters_, batch_,
                             {.seed = 1, .step = static_cast<std::uint32_t>(step_)}, {}, logits_, losses_);
    engine::ops::gradient_norm(context, parameters_.gradients(), norm_);
    engine::ops::adamw(context, {.weight_decay = 1e-4,
                                 .max_norm = 1,
                                 .state = state_,
                                 .norm = norm_,
                                 .losses = losses_,
                                 .gradient = parameters_.gradients(),
                                 .master = parameters_.masters(),
                                 .exp_avg = parameters_.exp_avgs(),
                                 .exp_avg_sq = parameters_.exp_avg_sqs(),
                                 .weights = parameters_.weights()});
  }

  [[nodiscard]] float loss() const { return losses_.as<float>()[engine::kTotalLoss]; }
  [[nodiscard]] const engine::ParameterStore& parameters() const { return parameters_; }
  [[nodiscard]] std::size_t allocated_bytes() const { return device_->allocated_bytes(); }

 private:
  engine::Tensor tensor(const char* name, const engine::Shape& shape, engine::DType dtype) {
    engine::Tensor result{.shape = shape, .dtype = dtype, .device = engine::DeviceKind::kCpu, .name = name};
    blocks_.push_back(device_->allocate(name, result.bytes()));
    result.data = blocks_.back().data();
    return result;
  }

  std::unique_ptr<engine::Device> device_;
  std::unique_ptr<engine::Model> model_;
  engine::ParameterStore parameters_;
  engine::Device::Block activations_;
  std::unique_ptr<engine::Arena> arena_;
  std::vector<engine::Device::Block> blocks_;
  engine::Batch batch_;
  engine::Tensor logits_;
  engine::Tensor losses_;
  engine::Tensor norm_;
  engine::Tensor state_;
  std::int64_t step_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  cxxopts::Options options("step_bench", "One training step on the CPU");
  const auto integer = [](const char* value) { return cxxopts::value<std::int64_t>()->default_value(value); };
  options.add_options()("hidden", "", integer("256"))("num_layers", "", integer("4"))(
      "num_heads", "", integer("4"))("seq_len", "", integer("128"))("batch_size", "", integer("16"))(
      "threads", "", integer("2"))("warmup", "steps before the clock starts", integer("3"))(
      "steps", "steps timed, one by one", integer("15"))("dropout", "",
                                                         cxxopts::value<double>()->default_value("0.1"))(
      "cross_attention", "", cxxopts::value<std::string>()->default_value("a2v"));
  const auto arguments = options.parse(argc, argv);
  const auto get = [&](const char* name) { return arguments[name].as<std::int64_t>(); };
  const model::ModelConfig config{
      .hidden = get("hidden"),
      .num_layers = get("num_layers"),
      .num_heads = get("num_heads"),
      .seq_len = get("seq_len"),
      .dropout = arguments["dropout"].as<double>(),
      .cross_attention = model::parse_cross_attention(arguments["cross_attention"].as<std::string>())};
  Step step(config, get("batch_size"), static_cast<int>(get("threads")));
  for (std::int64_t i = 0; i < get("warmup"); ++i) step.run();
  std::vector<double> times;
  for (std::int64_t i = 0; i < get("steps"); ++i) {
    const auto start = Clock::now();
    step.run();
    times.push_back(benchmarks::milliseconds_since(start));
  }
  const double median = benchmarks::median(times);
  const auto flops = model::count_flops(config, {.use_contrastive = true}, get("batch_size"));
  const double all_flops =
      flops.gemm_forward + flops.gemm_backward + flops.attention_forward + flops.attention_backward;
  rusage usage{};  // taken before the roofs, whose matrices are no part of a step
  getrusage(RUSAGE_SELF, &usage);
  nlohmann::ordered_json result;
  result["what"] = "training step, voca-engine CPU, fp32";
  result["kernels"] = kernels::cpu::instruction_set();
  result["cross_attention"] = model::name_of(config.cross_attention);
  result["parameters"] = step.parameters().parameters();
  result["ms_per_step"] = times;
  result["median_ms"] = median;
  result["min_ms"] = *std::min_element(times.begin(), times.end());
  result["max_ms"] = *std::max_element(times.begin(), times.end());
  result["flops_per_step"] = all_flops;
  result["gflops"] = all_flops / median / 1e6;
  result["gemm_roof_gflops"] = kernels::benchmarks::gemm_roof() / 1e9;
  result["copy_roof_gb_per_s"] = kernels::benchmarks::copy_roof(256e6) / 1e9;
  result["allocated_mib"] = static_cast<double>(step.allocated_bytes()) / 1048576.0;
  result["peak_rss_mib"] = static_cast<double>(usage.ru_maxrss) / 1024.0;
  result["last_loss"] = step.loss();
  std::printf("%s\n", result.dump().c_str());
  return 0;
}
