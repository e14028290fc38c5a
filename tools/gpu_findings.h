#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/telemetry/nvml.h"
#include "tools/finding.h"

namespace voca::tools {

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
