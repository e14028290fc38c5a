#include "tools/planned_device.h"

#include <chrono>
#include <cstddef>
#include <limits>
#include <vector>

#include "engine/base/error.h"
#include "kernels/gemm.h"

namespace voca::tools {
namespace {

/// FLOP/s of a 1024 × 1024 × 1024 GEMM in float32 on all threads, the best of several: an upper bound for a
/// step.
double measure_gemm_rate() {
  constexpr std::int64_t kSize = 1024;
  const auto elements = static_cast<std::size_t>(kSize * kSize);
  const std::vector<float> a(elements, 0.5F);
  const std::vector<float> b(elements, 0.25F);
  std::vector<float> c(elements);
  kernels::Gemm<float> args{.m = kSize,
                            .n = kSize,
                            .k = kSize,
                            .a = a.data(),
                            .lda = kSize,
                            .b = b.data(),
                            .ldb = kSize,
                            .c = c.data(),
                            .ldc = kSize};
  std::vector<std::byte> scratch(scratch_bytes(kernels::Cpu{}, args));
  args.scratch = scratch.data();
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    kernels::gemm(kernels::Cpu{}, args);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::min(best, seconds.count());
  }
  return 2.0 * static_cast<double>(kSize * kSize * kSize) / best;
}

struct Peak {
  std::string_view name;  ///< part of the device's name; the first match counts
  double fp32;            ///< TFLOP/s
  double tf32;
  double sixteen_bit;
};
constexpr Peak kPeaks[] = {{"A800", 19.5, 156, 312},
                           {"A100", 19.5, 156, 312},
                           {"H100 PCIe", 51, 378, 756},
                           {"H100", 67, 494.5, 989},
                           {"H200", 67, 494.5, 989}};

PlannedDevice gpu_that_is_here(const DeviceOptions& options, engine::DType dtype,
                               const std::function<void(const std::string&)>& note) {
  const std::unique_ptr<engine::Device> device = make_device(options, note);
  return {.kind = device->kind(),
          .description = device->description(),
          .free = device->free_memory(),
          .flops_per_s = peak_flops(device->description(), dtype, options.cuda.allow_tf32),
          .flops_source = "the data sheet gives as its peak for GEMM"};
}

}  // namespace

std::optional<double> peak_flops(std::string_view gpu, engine::DType dtype, bool allow_tf32) {
  for (const Peak& peak : kPeaks) {
    if (gpu.find(peak.name) == std::string_view::npos) continue;
    if (dtype != engine::DType::kF32) return 1e12 * peak.sixteen_bit;
    return 1e12 * (allow_tf32 ? peak.tf32 : peak.fp32);
  }
  return std::nullopt;
}

PlannedDevice look_at_device(const DeviceOptions& options, std::size_t gpu_memory,
                             const std::function<engine::DType(engine::DeviceKind)>& dtype_on,
                             const std::function<void(const std::string&)>& note) {
  const DeviceChoice& choice = options.choice;
  const engine::CudaAvailability cuda = engine::cuda_availability();
  const bool asked = choice.kind == DeviceChoice::Kind::kCuda;
  const bool found = choice.kind != DeviceChoice::Kind::kCpu && cuda.devices > 0;
  if (gpu_memory > 0 && !asked && !found)
    throw engine::UsageError("--gpu_memory: the plan is for a CPU; give it with --device cuda");
  if (!asked && !found) {
    const std::unique_ptr<engine::Device> cpu = make_device(options, note);
    return {.kind = cpu->kind(),
            .description = cpu->description(),
            .free = cpu->free_memory(),
            .flops_per_s = measure_gemm_rate(),
            .flops_source = "a large product reaches now"};
  }
  if (!engine::built_with_cuda()) throw engine::UsageError("--device {}: {}", choice.text(), cuda.reason);
  PlannedDevice planned = found ? gpu_that_is_here(options, dtype_on(engine::DeviceKind::kCuda), note)
                                : PlannedDevice{.kind = engine::DeviceKind::kCuda,
                                                .description = "a GPU that is not here: " + cuda.reason};
  if (gpu_memory > 0) planned.free = engine::FreeMemory{.bytes = gpu_memory, .limit = ""};
  return planned;
}

}  // namespace voca::tools
