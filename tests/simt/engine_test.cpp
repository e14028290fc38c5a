// Tests of the engine on a GPU: GEMMs, and the whole network compared with the CPU backend with dropout on.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/random.h"
#include "engine/core/element.h"
#include "engine/core/gemm_library.h"
#include "engine/core/host_tensor.h"
#include "engine/ops/ops.h"
#include "engine/trainer/memory_plan.h"
#include "kernels/cpu/half.h"
#include "model/crossmodal_transformer.h"
#include "model/tasks/detection.h"
#include "tests/simt/relative_error.h"
#include "tests/simt/tested_device.h"

namespace voca::simt::host {
namespace {

using engine::DType;
using engine::HostTensor;
using engine::LibraryGemm;
using engine::Tensor;
using kernels::Transpose;

std::vector<double> random_numbers(std::int64_t n, std::uint64_t seed) {
  engine::RandomStream random(seed, engine::RandomPurpose::kSynthetic, 0);
  std::vector<double> numbers(static_cast<std::size_t>(n));
  for (double& number : numbers) number = random.normal();
  return numbers;
}

/// Tensor on a device, filled with numbers rounded to its type.
class OnDevice {
 public:
  OnDevice(engine::Device& device, const engine::Shape& shape, DType dtype,
           const std::vector<double>& numbers)
      : device_(device), block_(device.allocate("test", static_cast<std::size_t>(shape.elements()) * 8)) {
    tensor_ = {
        .data = block_.data(), .shape = shape, .dtype = dtype, .device = device.kind(), .name = "test"};
    std::vector<std::byte> bytes(tensor_.bytes());
    for (std::size_t i = 0; i < numbers.size(); ++i) put(bytes.data(), i, numbers[i]);
    write_to(device, tensor_, 0, bytes.data(), bytes.size());
  }
  [[nodiscard]] const Tensor& tensor() const { return tensor_; }
  [[nodiscard]] std::vector<double> numbers() const {
    const HostTensor host(device_, tensor_);
    std::vector<double> out;
    for (std::int64_t i = 0; i < tensor_.elements(); ++i) out.push_back(engine::read_back(host.tensor(), i));
    return out;
  }

 private:
  void put(std::byte* bytes, std::size_t i, double number) const {
    const auto value = static_cast<float>(number);
    switch (tensor_.dtype) {
      case DType::kBF16:
        reinterpret_cast<std::uint16_t*>(bytes)[i] = kernels::cpu::float_to_bfloat16(value);
        break;
      case DType::kF16:
        reinterpret_cast<std::uint16_t*>(bytes)[i] = kernels::cpu::float_to_half(value);
        break;
      case DType::kI32:
        reinterpret_cast<std::int32_t*>(bytes)[i] = static_cast<std::int32_t>(number);
        break;
      default:
        reinterpret_cast<float*>(bytes)[i] = value;
    }
  }

  engine::Device& device_;
  engine::Device::Block block_;
  Tensor tensor_;
};

/// Result C of one GEMM, in double, from operands rounded as on the device.
std::vector<double> by_loops(const LibraryGemm& p, const std::vector<double>& a, const std::vector<double>& b,
                             const std::vector<double>& bias, std::vector<double> c) {
  for (std::int64_t batch = 0; batch < p.batch; ++batch) {
    for (std::int64_t i = 0; i < p.m; ++i) {
      for (std::int64_t j = 0; j < p.n; ++j) {
        double sum = p.add_bias ? bias[static_cast<std::size_t>(j)] : 0;
        for (std::int64_t k = 0; k < p.k; ++k) {
          const std::int64_t ai = p.transpose_a == Transpose::kYes ? k * p.lda + i : i * p.lda + k;
          const std::int64_t bi = p.transpose_b == Transpose::kYes ? j * p.ldb + k : k * p.ldb + j;
          sum += a[static_cast<std::size_t>(batch * p.stride_a + ai)] *
                 b[static_cast<std::size_t>(batch * p.stride_b + bi)];
        }
        double& out = c[static_cast<std::size_t>(batch * p.stride_c + i * p.ldc + j)];
        out = sum + (p.beta != 0 ? p.beta * out : 0);
      }
    }
  }
  return c;
}

LibraryGemm gemm_of(DType dtype, std::int64_t m, std::int64_t n, std::int64_t k, bool ta, bool tb,
                    std::int64_t batch, std::int64_t gap) {
  LibraryGemm p{{.transpose_a = ta ? Transpose::kYes : Transpose::kNo,
                 .transpose_b = tb ? Transpose::kYes : Transpose::kNo,
                 .m = m,
                 .n = n,
                 .k = k},
                dtype};
  p.lda = (ta ? m : k) + gap;
  p.ldb = (tb ? k : n) + gap;
  p.ldc = n + gap;
  p.batch = batch;
  p.stride_a = (ta ? k : m) * p.lda;
  p.stride_b = (tb ? n : k) * p.ldb;
  p.stride_c = m * p.ldc;
  return p;
}

/// All forms the engine uses: both transposes, bias, accumulation, batches, unaligned rows.
TEST(GemmLibrary, GivesWhatPlainLoopsGive) {
  const auto device = make_tested_device();
  const auto workspace = device->allocate("workspace", device->gemm_library()->workspace_bytes());
  const auto memory = device->allocate("memory", std::size_t{1} << 20);
  struct Form {
    std::int64_t m, n, k;
    bool ta, tb;
    std::int64_t batch, gap;
  };
  const Form forms[] = {{16, 24, 32, false, false, 1, 0}, {16, 24, 32, false, true, 1, 8},
                        {24, 16, 40, true, false, 1, 0},  {8, 16, 24, true, true, 1, 8},
                        {7, 5, 3, false, true, 1, 0},     {13, 11, 9, true, false, 1, 1},
                        {6, 10, 12, false, true, 4, 0},   {9, 7, 5, false, false, 3, 2},
                        {1, 33, 17, false, true, 1, 0},   {40, 1, 16, false, true, 1, 0}};
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    // A result is rounded once to its type; accumulation is in fp32.
    const double tolerance = dtype == DType::kF32 ? 2e-6 : dtype == DType::kF16 ? 1e-3 : 8e-3;
    for (const Form& form : forms) {
      for (const bool accumulate : {false, true}) {
        for (const bool add_bias : {false, true}) {
          if (accumulate && add_bias) continue;
          LibraryGemm p = gemm_of(dtype, form.m, form.n, form.k, form.ta, form.tb, form.batch, form.gap);
          p.beta = accumulate ? 1 : 0;
          p.add_bias = add_bias;
          p.alignment = static_cast<int>(engine::size_of(dtype));
          const OnDevice a(*device, {p.stride_a * p.batch}, dtype, random_numbers(p.stride_a * p.batch, 1));
          const OnDevice b(*device, {p.stride_b * p.batch}, dtype, random_numbers(p.stride_b * p.batch, 2));
          const OnDevice c(*device, {p.stride_c * p.batch}, dtype, random_numbers(p.stride_c * p.batch, 3));
          const OnDevice bias(*device, {p.n}, dtype, random_numbers(p.n, 4));
          const std::vector<double> want = by_loops(p, a.numbers(), b.numbers(), bias.numbers(), c.numbers());
          device->gemm_library()->prepare(p);
          device->gemm_library()->tune(workspace.data(), memory.data(), memory.bytes());
          p.a = a.tensor().data;
          p.b = b.tensor().data;
          p.c = c.tensor().data;
          if (add_bias) p.bias = bias.tensor().data;
          device->gemm_library()->gemm(p, device->compute_stream());
          EXPECT_LT(relative_error(c.numbers(), want), tolerance)
              << engine::name_of(dtype) << ' ' << p.m << 'x' << p.n << 'x' << p.k << (form.ta ? " ta" : "")
              << (form.tb ? " tb" : "") << (accumulate ? " accumulate" : "") << (add_bias ? " bias" : "");
        }
      }
    }
  }
}

/// Losses, logits and gradients of one pass from seeded weights and inputs.
struct Pass {
  std::vector<double> losses;
  std::vector<double> logits;
  std::vector<std::vector<double>> gradients;
};

Pass run_pass(const model::ModelConfig& config, std::int64_t batch_size, DType dtype,
              engine::Device& device) {
  const auto network = model::make_crossmodal_transformer(
      config, {.label_smoothing = 0.1, .use_contrastive = true, .temperature = 1});
  engine::Workspace workspace(*network, {.compute_type = dtype, .train_batch = batch_size}, device);
  workspace.parameters().initialise(3);
  const auto input = [&](std::size_t i) {
    const engine::Shape shape = network->signature().batch.inputs[i].of(batch_size);
    return OnDevice(device, shape, dtype, random_numbers(shape.elements(), i + 5));
  };
  const OnDevice visual = input(0);
  const OnDevice audio = input(1);
  std::vector<double> alternating;
  for (std::int64_t i = 0; i < batch_size; ++i) alternating.push_back(static_cast<double>(i % 2));
  const OnDevice labels(device, {batch_size}, DType::kI32, alternating);
  engine::Batch batch;
  batch.size = batch_size;
  const auto named = [](Tensor tensor, const char* name) {
    tensor.name = name;
    return tensor;
  };
  batch.inputs.push_back(named(visual.tensor(), "visual"));
  batch.inputs.push_back(named(audio.tensor(), "audio"));
  batch.targets.push_back(named(labels.tensor(), model::kLabel));
  engine::Context context = workspace.context();
  engine::ops::fill(context, 0, workspace.parameters().gradients());
  network->forward_backward(context, workspace.parameters(), batch, {.seed = 3, .step = 7}, {},
                            workspace.outputs(batch_size), workspace.losses(0));
  const auto numbers = [&](const Tensor& tensor) {
    const HostTensor host(device, tensor);
    std::vector<double> out;
    for (std::int64_t i = 0; i < tensor.elements(); ++i) out.push_back(engine::read_back(host.tensor(), i));
    return out;
  };
  Pass pass{.losses = numbers(workspace.losses(0)),
            .logits = numbers(workspace.outputs(batch_size)[0]),
            .gradients = {}};
  for (engine::ParameterId id = 0; id < workspace.parameters().count(); ++id)
    pass.gradients.push_back(numbers(workspace.parameters().gradient(id)));
  return pass;
}

double norm(const std::vector<double>& numbers) {
  double square = 0;
  for (const double number : numbers) square += number * number;
  return std::sqrt(square);
}

TEST(WholeModel, InFloatEqualsTheCpuWithDropoutOn) {
  model::ModelConfig config;
  config.visual_dim = kRealGpu ? 512 : 24;
  config.audio_dim = kRealGpu ? 512 : 40;
  config.hidden = kRealGpu ? 256 : 32;
  config.num_layers = kRealGpu ? 4 : 1;
  config.num_heads = kRealGpu ? 4 : 2;
  config.seq_len = kRealGpu ? 100 : 7;
  config.dropout = 0.1;
  config.cross_attention = model::CrossAttention::kBidirectional;
  const std::int64_t batch = kRealGpu ? 8 : 3;
  const auto cpu_device = engine::make_cpu_device(0);
  const auto gpu_device = make_tested_device();
  const Pass cpu = run_pass(config, batch, DType::kF32, *cpu_device);
  const Pass gpu = run_pass(config, batch, DType::kF32, *gpu_device);
  EXPECT_LT(relative_error(gpu.losses, cpu.losses), 1e-5);
  EXPECT_LT(relative_error(gpu.logits, cpu.logits), 1e-4);
  double largest = 0;
  for (const auto& gradient : cpu.gradients) largest = std::max(largest, norm(gradient));
  for (std::size_t id = 0; id < cpu.gradients.size(); ++id) {
    // The gradient of a key bias is only rounding error.
    if (norm(cpu.gradients[id]) > 1e-3 * largest) {
      EXPECT_LT(relative_error(gpu.gradients[id], cpu.gradients[id]), 1e-4) << "parameter " << id;
    }
  }
  const Pass again = run_pass(config, batch, DType::kF32, *gpu_device);
  EXPECT_EQ(again.gradients, gpu.gradients);
}

}  // namespace
}  // namespace voca::simt::host
