#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/names.h"
#include "engine/telemetry/nvml.h"

namespace voca::tools {

enum class Verdict : std::uint8_t { kOk, kWarning, kProblem };
constexpr auto names_of(Verdict /*tag*/) {
  return std::to_array<engine::Named<Verdict>>(
      {{"ok", Verdict::kOk}, {"warning", Verdict::kWarning}, {"PROBLEM", Verdict::kProblem}});
}

/// One line of the report of `doctor`.
struct Finding {
  std::string what;
  Verdict verdict = Verdict::kOk;
  std::string text;  ///< what was found and, if not ok, what to do
};

/// Facts by which `doctor` judges a machine's GPUs.
struct GpuFacts {
  engine::NvmlReport nvml;
  bool kernel_driver = false;       ///< /proc/driver/nvidia/version exists
  std::string toolkit;              ///< CUDA toolkit of the build, "13.0.88"; empty if none
  std::optional<int> nccl_version;  ///< ncclGetVersion of the library found; nullopt if none
};

/// Collects the facts about this machine.
[[nodiscard]] GpuFacts look_for_gpus();

/// Judges driver, each GPU (capability, memory; ECC; clocks), links and NCCL. A GPU that could corrupt a
/// training is a problem. What only prevents training on a GPU is a warning, since the CPU engine works
/// without.
[[nodiscard]] std::vector<Finding> judge_gpus(const GpuFacts& facts);

}  // namespace voca::tools
