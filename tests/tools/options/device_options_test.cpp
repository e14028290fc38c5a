#include "tools/options/device_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <utility>
#include <vector>

#include "engine/base/error.h"
#include "tools/planned_device.h"

namespace voca::tools {
namespace {

using engine::DType;
using engine::UsageError;
using testing::HasSubstr;
using Kind = DeviceChoice::Kind;

constexpr std::size_t kGib = std::size_t{1} << 30;

/// What is said beside the result.
struct Notes {
  std::vector<std::string> lines;
  auto listener() {
    return [this](const std::string& line) { lines.push_back(line); };
  }
};

DType always_float32(engine::DeviceKind /*kind*/) {
  return DType::kF32;
}

bool gpu_is_here() {
  return engine::cuda_availability().devices > 0;
}

TEST(DeviceOption, HasFourForms) {
  EXPECT_EQ(DeviceChoice::parse("auto").value().kind, Kind::kAuto);
  EXPECT_EQ(DeviceChoice::parse("cpu").value().kind, Kind::kCpu);
  EXPECT_EQ(DeviceChoice::parse("cuda").value().kind, Kind::kCuda);
  EXPECT_LT(DeviceChoice::parse("cuda").value().index, 0);
  EXPECT_EQ(DeviceChoice::parse("cuda:3").value().kind, Kind::kCuda);
  EXPECT_EQ(DeviceChoice::parse("cuda:3").value().index, 3);
  for (const char* wrong : {"", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "cuda1", "cpu:0"})
    EXPECT_FALSE(DeviceChoice::parse(wrong)) << wrong;
  for (const char* text : {"auto", "cpu", "cuda", "cuda:3"})
    EXPECT_EQ(DeviceChoice::parse(text).value().text(), text);
}

TEST(MakeDevice, TakesTheCpuWithoutAWordWhereItIsAskedFor) {
  Notes notes;
  EXPECT_EQ(make_device({.choice = {.kind = Kind::kCpu}}, notes.listener())->kind(),
            engine::DeviceKind::kCpu);
  EXPECT_TRUE(notes.lines.empty());
}

TEST(MakeDevice, WithoutAGpuSaysWhyItTakesTheCpuAndRefusesAGpuWithTheSameReason) {
  if (gpu_is_here()) GTEST_SKIP() << "there is a GPU";
  const std::string reason = engine::cuda_availability().reason;
  ASSERT_FALSE(reason.empty());
  Notes notes;
  EXPECT_EQ(make_device({.choice = {.kind = Kind::kAuto}}, notes.listener())->kind(),
            engine::DeviceKind::kCpu);
  if (engine::built_with_cuda()) {
    ASSERT_EQ(notes.lines.size(), 1U);
    EXPECT_THAT(notes.lines[0], HasSubstr(reason));
  } else {
    EXPECT_TRUE(notes.lines.empty());
  }
  for (const char* device : {"cuda", "cuda:0"}) {
    try {
      (void)make_device({.choice = DeviceChoice::parse(device).value()}, notes.listener());
      FAIL() << "nothing was thrown";
    } catch (const UsageError& error) {
      EXPECT_THAT(error.what(), HasSubstr(std::string("--device ") + device));
      EXPECT_THAT(error.what(), HasSubstr(reason));
    }
  }
}

TEST(PromisedGpus, AreWhatAVariableSays) {
  using Values = std::map<std::string, std::string>;
  const auto of = [](const std::string& name, const std::string& value) {
    return promised_gpus(engine::EnvVars(Values{{name, value}}));
  };
  EXPECT_EQ(promised_gpus(engine::EnvVars(Values{})), "");
  EXPECT_EQ(of("CUDA_VISIBLE_DEVICES", "0"), "CUDA_VISIBLE_DEVICES=0");
  EXPECT_EQ(of("CUDA_VISIBLE_DEVICES", "GPU-5a1b,GPU-6"), "CUDA_VISIBLE_DEVICES=GPU-5a1b,GPU-6");
  EXPECT_EQ(of("SLURM_GPUS_ON_NODE", "4"), "SLURM_GPUS_ON_NODE=4");
  EXPECT_EQ(of("SLURM_GPUS_PER_TASK", "1"), "SLURM_GPUS_PER_TASK=1");
  EXPECT_EQ(of("SLURM_STEP_GPUS", "0"), "SLURM_STEP_GPUS=0");
  EXPECT_EQ(of(kLaunchedForGpus, "8"), std::string(kLaunchedForGpus) + "=8");
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"CUDA_VISIBLE_DEVICES", ""},
                                                        {"CUDA_VISIBLE_DEVICES", "-1"},
                                                        {"CUDA_VISIBLE_DEVICES", "NoDevFiles"},
                                                        {"SLURM_GPUS", "0"},
                                                        {"SLURM_GPUS_ON_NODE", "0"},
                                                        {kLaunchedForGpus, "0"}})
    EXPECT_EQ(of(name, value), "") << name << '=' << value;
}

TEST(MakeDevice, DoesNotFallToTheCpuWhereGpusWerePromised) {
  if (gpu_is_here()) GTEST_SKIP() << "there is a GPU";
  Notes notes;
  ::setenv("SLURM_GPUS_PER_TASK", "1", 1);
  try {
    (void)make_device({.choice = {.kind = Kind::kAuto}}, notes.listener());
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--device auto: " + engine::cuda_availability().reason));
    EXPECT_THAT(error.what(), HasSubstr("SLURM_GPUS_PER_TASK=1"));
    EXPECT_THAT(error.what(), HasSubstr("--device cpu"));
  }
  EXPECT_EQ(make_device({.choice = {.kind = Kind::kCpu}}, notes.listener())->kind(),
            engine::DeviceKind::kCpu);
  ::unsetenv("SLURM_GPUS_PER_TASK");
}

TEST(PlannedDevice, IsTheCpuWithItsMeasuredRateWhereNoGpuIsMeant) {
  const PlannedDevice cpu =
      look_at_device({.choice = {.kind = Kind::kCpu}}, 0, always_float32, [](const std::string&) {});
  EXPECT_EQ(cpu.kind, engine::DeviceKind::kCpu);
  EXPECT_GT(cpu.flops_per_s.value_or(0), 0);
  ASSERT_TRUE(cpu.free);
  EXPECT_GT(cpu.free->bytes, 0U);
  EXPECT_THROW((void)look_at_device({.choice = {.kind = Kind::kCpu}}, 80 * kGib, always_float32,
                                    [](const std::string&) {}),
               UsageError);
}

TEST(PlannedDevice, MayBeAGpuThatIsNotHere) {
  if (gpu_is_here()) GTEST_SKIP() << "there is a GPU";
  const auto ignore = [](const std::string&) {};
  if (!engine::built_with_cuda()) {
    EXPECT_THROW((void)look_at_device({.choice = {.kind = Kind::kCuda}}, 0, always_float32, ignore),
                 UsageError);
    return;
  }
  const PlannedDevice gpu =
      look_at_device({.choice = {.kind = Kind::kCuda}}, 80 * kGib, always_float32, ignore);
  EXPECT_EQ(gpu.kind, engine::DeviceKind::kCuda);
  ASSERT_TRUE(gpu.free);
  EXPECT_EQ(gpu.free->bytes, 80 * kGib);
  EXPECT_EQ(gpu.flops_per_s, std::nullopt);
  EXPECT_FALSE(look_at_device({.choice = {.kind = Kind::kCuda}}, 0, always_float32, ignore).free);
}

TEST(PeakFlops, DependOnTypeAndAreUnknownForOtherGpus) {
  EXPECT_EQ(peak_flops("cuda:0, NVIDIA A800-SXM4-80GB", DType::kBF16, false), 312e12);
  EXPECT_EQ(peak_flops("cuda:0, NVIDIA A800-SXM4-80GB", DType::kF32, false), 19.5e12);
  EXPECT_EQ(peak_flops("cuda:0, NVIDIA A800-SXM4-80GB", DType::kF32, true), 156e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 PCIe", DType::kF16, false), 756e12);
  EXPECT_EQ(peak_flops("NVIDIA H100 80GB HBM3", DType::kF16, true), 989e12);
  EXPECT_EQ(peak_flops("NVIDIA GeForce RTX 4090", DType::kF16, false), std::nullopt);
}

}  // namespace
}  // namespace voca::tools
