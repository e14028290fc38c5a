#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/telemetry/nvml.h"
#include "tools/finding.h"

namespace voca::tools {

/// What doctor judges a machine's GPUs by.
struct GpuFacts {
  engine::NvmlReport nvml;
  bool kernel_driver = false;       ///< /proc/driver/nvidia is there
  std::string toolkit;              ///< CUDA toolkit of the build, "13.0.88"; empty without one
  std::optional<int> nccl_version;  ///< ncclGetVersion of the library found; empty where there is none
};

/// Of this machine.
[[nodiscard]] GpuFacts look_for_gpus();

/// Driver, each GPU (capability, memory; ECC; clocks), links, NCCL. A GPU that could corrupt a training is a
/// problem; what only keeps training off a GPU is a warning, since the CPU engine works without.
[[nodiscard]] std::vector<Finding> judge_gpus(const GpuFacts& facts);

}  // namespace voca::tools
