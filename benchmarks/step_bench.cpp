// One training step: forward, backward, clipping and AdamW, from a batch on the device; or a forward pass.
// The PyTorch counterparts are benchmarks/rivals/step_cpu.py, in the same run of benchmarks/compare_step.sh,
// and benchmarks/rivals/step.py on a GPU. Prints one line of JSON.

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "benchmarks/kernels/support/roof.h"
#include "benchmarks/support/options.h"
#include "benchmarks/support/statistics.h"
#include "engine/base/random.h"
#include "engine/core/cuda_device.h"
#include "engine/core/device.h"
#include "engine/core/element.h"
#include "engine/core/host_tensor.h"
#include "engine/ops/ops.h"
#include "engine/trainer/memory_plan.h"
#include "engine/trainer/optimizer.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/levels.h"
#include "model/crossmodal_transformer.h"
#include "model/registry.h"
#include "model/tasks/detection.h"

namespace {

using namespace voca;
using benchmarks::Clock;
using engine::DType;

std::unique_ptr<engine::Device> make_device(const std::string& name, int threads, bool allow_tf32) {
  if (name == "cpu") return engine::make_cpu_device(threads);
  return engine::make_cuda_device(engine::cuda_availability().first, {.allow_tf32 = allow_tf32});
}

DType dtype_of(const std::string& precision) {
  if (precision == "bf16") return DType::kBF16;
  return precision == "fp16" ? DType::kF16 : DType::kF32;
}

// The batch and everything that a training step, or a forward pass only, needs, allocated once.
class Step {
 public:
  Step(const model::ModelConfig& config, std::int64_t batch_size, DType dtype, bool inference,
       engine::Device& device)
      : device_(device),
        model_(model::make_crossmodal_transformer(config, {.label_smoothing = 0.1, .use_contrastive = true})),
        workspace_(*model_,
                   {.compute_type = dtype,
                    .train_batch = inference ? 0 : batch_size,
                    .eval_batch = inference ? batch_size : 0},
                   device) {
    if (!inference) {
      optimizer_.emplace(engine::OptimizerOptions{.adamw = {.weight_decay = 1e-4}, .max_grad_norm = 1},
                         workspace_);
    }
    workspace_.parameters().initialise(1);
    engine::RandomStream random(1, engine::RandomPurpose::kSynthetic, 0);
    batch_.size = batch_size;
    for (const engine::TensorSpec& input : model_->signature().batch.inputs) {
      const engine::Shape shape = input.of(batch_size);
      std::vector<float> numbers(static_cast<std::size_t>(shape.elements()));
      for (float& number : numbers) number = static_cast<float>(random.normal());
      batch_.inputs.push_back(place(input.name.c_str(), shape, dtype, numbers));
    }
    std::vector<std::int32_t> labels(static_cast<std::size_t>(batch_size));
    for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = static_cast<std::int32_t>(i % 2);
    batch_.targets.push_back(place(model::kLabel, {batch_size}, DType::kI32, labels));
  }

  void run() {
    ++step_;
    device_.queue_together(0, device_.compute_stream(), [&] {
      engine::Context context = workspace_.context();
      if (!optimizer_) {
        model_->predict(context, workspace_.parameters(), batch_, workspace_.outputs(batch_.size), {});
        return;
      }
      optimizer_->start_step();
      model_->forward_backward(context, workspace_.parameters(), batch_, {.seed = 1, .step = step_},
                               optimizer_->gradient_scale(1), workspace_.outputs(batch_.size),
                               workspace_.losses(0));
      optimizer_->measure_norm();
      optimizer_->update(3e-4);
    });
  }
  void wait() { device_.synchronize(device_.compute_stream()); }

  [[nodiscard]] double loss() const {
    if (!optimizer_) return 0;
    return engine::read_back(engine::HostTensor(device_, workspace_.losses()).tensor(), 0);
  }
  [[nodiscard]] const engine::ParameterStore& parameters() const { return workspace_.parameters(); }

 private:
  static void put(DType dtype, std::byte* to, std::size_t i, float value) {
    if (dtype == DType::kF32) {
      reinterpret_cast<float*>(to)[i] = value;
    } else {
      reinterpret_cast<std::uint16_t*>(to)[i] =
          dtype == DType::kBF16 ? kernels::cpu::float_to_bfloat16(value) : kernels::cpu::float_to_half(value);
    }
  }
  static void put(DType /*dtype*/, std::byte* to, std::size_t i, std::int32_t value) {
    reinterpret_cast<std::int32_t*>(to)[i] = value;
  }
  template <typename T>
  engine::Tensor place(const char* name, const engine::Shape& shape, DType dtype,
                       const std::vector<T>& numbers) {
    engine::Tensor tensor{.shape = shape, .dtype = dtype, .device = device_.kind(), .name = name};
    blocks_.push_back(device_.allocate(name, tensor.bytes()));
    tensor.data = blocks_.back().data();
    std::vector<std::byte> bytes(tensor.bytes());
    for (std::size_t i = 0; i < numbers.size(); ++i) put(dtype, bytes.data(), i, numbers[i]);
    engine::write_to(device_, tensor, 0, bytes.data(), bytes.size());
    return tensor;
  }

  engine::Device& device_;
  std::unique_ptr<engine::Model> model_;
  engine::Workspace workspace_;
  std::optional<engine::Optimizer> optimizer_;  // none: forward only
  std::vector<engine::Device::Block> blocks_;
  engine::Batch batch_;
  std::uint32_t step_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("step_bench"));
  model::ModelConfig config;
  std::int64_t batch_size = 16;
  std::int64_t threads = 2;
  std::int64_t warmup = 3;
  std::int64_t steps = 15;
  std::int64_t group = 1;
  std::string device_name = "cpu";
  std::string precision = "fp32";
  bool inference = false;
  bool roofs = true;
  tools::OptionSet options("step_bench", "one training step");
  config.hidden = 256;
  config.num_layers = 4;
  config.num_heads = 4;
  config.seq_len = 128;
  config.dropout = 0.1;
  options.add(config.hidden, {"hidden", "N", "width of the network"});
  options.add(config.num_layers, {"num_layers", "N", "of the encoder"});
  options.add(config.num_heads, {"num_heads", "N", "of attention"});
  options.add(config.seq_len, {"seq_len", "N", "frames a sample"});
  options.add(batch_size, {"batch_size", "N", "samples a step"});
  options.add(threads, {"threads", "N", "of the CPU backend"});
  options.add(warmup, {"warmup", "N", "steps before the clock starts"});
  options.add(steps, {"steps", "N", "times taken"});
  options.add(group, {"group", "N", "steps a time is taken of; a GPU queues them"});
  options.add(device_name, {"device", "NAME", "cpu or cuda"});
  options.add(precision, {"precision", "NAME", "fp32; on a GPU also tf32, bf16, fp16"});
  options.add(config.dropout, {"dropout", "P", "probability"});
  options.add(config.cross_attention, {"cross_attention", "", "form of the network"});
  options.add(inference, {"inference", "", "forward only, without dropout"});
  options.add(roofs, {"roofs", "", "measure what this machine's memory and GEMM can do at most"});
  if (!benchmarks::parse(options, argc, argv)) return 0;
  const auto device = make_device(device_name, static_cast<int>(threads), precision == "tf32");
  Step step(config, batch_size, dtype_of(precision), inference, *device);
  for (std::int64_t i = 0; i < warmup; ++i) step.run();
  step.wait();
  std::vector<double> times;
  for (std::int64_t i = 0; i < steps; ++i) {
    const auto start = Clock::now();
    for (std::int64_t k = 0; k < group; ++k) step.run();
    step.wait();
    times.push_back(benchmarks::milliseconds_since(start) / static_cast<double>(group));
  }
  const double median = benchmarks::median(times);
  const auto flops = model::count_flops(config, {.use_contrastive = true}, batch_size);
  double all_flops = flops.gemm_forward + flops.attention_forward;
  if (!inference) all_flops += flops.gemm_backward + flops.attention_backward;
  rusage usage{};  // read before the roofs are measured: their matrices are not part of a step
  getrusage(RUSAGE_SELF, &usage);
  nlohmann::ordered_json result;
  result["what"] = fmt::format("{}, voca-engine {}, {}", inference ? "inference" : "training step",
                               device_name == "cpu" ? "CPU" : "GPU", precision);
  result["device"] = device->description();
  result["kernels"] = kernels::cpu::instruction_set();
  result["cross_attention"] = model::name_of(config.cross_attention);
  result["parameters"] = step.parameters().parameters();
  result["ms_per_step"] = times;
  result["median_ms"] = median;
  result["min_ms"] = *std::min_element(times.begin(), times.end());
  result["max_ms"] = *std::max_element(times.begin(), times.end());
  result["flops_per_step"] = all_flops;
  result["gflops"] = all_flops / median / 1e6;
  if (device_name == "cpu" && roofs) {
    result["gemm_roof_gflops"] = kernels::benchmarks::gemm_roof() / 1e9;
    result["copy_roof_gb_per_s"] = kernels::benchmarks::copy_roof(256e6) / 1e9;
  }
  result["allocated_mib"] = static_cast<double>(device->allocated_bytes()) / 1048576.0;
  result["peak_rss_mib"] = static_cast<double>(usage.ru_maxrss) / 1024.0;
  result["last_loss"] = step.loss();
  std::printf("%s\n", result.dump().c_str());
  return 0;
}
