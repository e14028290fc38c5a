#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/core/device.h"

namespace voca::tools {

/// Index of the GPU that a rank uses among the `gpus` visible to it: its local rank if the ranks of the node
/// see the same GPUs, 0 if each sees one of its own (srun --gpus-per-task=1). nullopt if there are too few.
[[nodiscard]] std::optional<int> gpu_of_rank(int local_rank, int local_world_size, int gpus);

/// Device of a rank, as the other ranks need to know it.
struct RankDevice {
  std::string host;
  engine::DeviceKind kind = engine::DeviceKind::kCpu;
  std::string uuid;           ///< UUID of the GPU; empty on a CPU
  std::string no_gpu;         ///< why a rank on the CPU has no GPU; empty if the CPU was asked for
  std::string kernels{};      ///< instruction set of the CPU kernels; empty on a GPU
  bool multiply_adds = true;  ///< whether it has multiply-add instructions, which round otherwise
};

/// Serialises a device for the other ranks, and parses it; throws what nlohmann::json throws for invalid
/// text.
[[nodiscard]] std::string text_of(const RankDevice& device);
[[nodiscard]] RankDevice rank_device_of(const std::string& text);

/// Why the ranks cannot compute together on these devices, in one line that names ranks, hosts and what to
/// do: some have a GPU and others none, two use one GPU, or their CPUs round otherwise. Empty if they can.
[[nodiscard]] std::string device_conflict(const std::vector<RankDevice>& by_rank);

}  // namespace voca::tools
