#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/core/device.h"

namespace voca::tools {

/// Which of the `gpus` that it sees a rank takes, from 0: its own of those that all ranks of the node see;
/// the only one, where each is shown its own (srun --gpus-per-task=1). Nothing where they do not suffice.
[[nodiscard]] std::optional<int> gpu_of_rank(int local_rank, int local_world_size, int gpus);

/// What a rank computes on, as the others need to know it.
struct RankDevice {
  std::string host;
  engine::DeviceKind kind = engine::DeviceKind::kCpu;
  std::string uuid;    ///< of a GPU
  std::string no_gpu;  ///< why a rank on the CPU has no GPU; empty where the CPU was asked for
};

/// As one rank tells it to the others, and back; throws what nlohmann::json throws for another text.
[[nodiscard]] std::string text_of(const RankDevice& device);
[[nodiscard]] RankDevice rank_device_of(const std::string& text);

/// Why ranks cannot compute together on these, in one line that names ranks, hosts and what to do: some have
/// a GPU and others none, or two compute on one GPU. Empty where they can.
[[nodiscard]] std::string device_conflict(const std::vector<RankDevice>& by_rank);

}  // namespace voca::tools
