#include "tools/rank_devices.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/base/json.h"
#include "engine/rendezvous/rank_facts.h"

namespace voca::tools {
namespace {

using engine::DeviceKind;
using engine::list_of_ranks;

/// "rank 1 (host b)", "ranks 0-3 (host a)"
std::string ranks_on(const std::vector<int>& ranks, const std::string& host) {
  return fmt::format("{} (host {})", list_of_ranks(ranks), host);
}

std::string mixed_kinds(const std::vector<RankDevice>& by_rank) {
  std::vector<int> on_gpus;
  std::vector<int> on_cpus;
  for (std::size_t rank = 0; rank < by_rank.size(); ++rank)
    (by_rank[rank].kind == DeviceKind::kCuda ? on_gpus : on_cpus).push_back(static_cast<int>(rank));
  if (on_gpus.empty() || on_cpus.empty()) return {};
  const RankDevice& first = by_rank[static_cast<std::size_t>(on_cpus.front())];
  const std::string why = first.no_gpu.empty() ? "" : fmt::format(", for {}", first.no_gpu);
  return fmt::format(
      "--device: {} on the CPU{}, {} on GPUs; give every rank a GPU, or --device cpu to all",
      on_cpus.size() == 1 ? ranks_on(on_cpus, first.host) + " computes" : list_of_ranks(on_cpus) + " compute",
      why, list_of_ranks(on_gpus));
}

std::string shared_gpu(const std::vector<RankDevice>& by_rank) {
  std::map<std::pair<std::string, std::string>, std::vector<int>> ranks;  // by host and GPU
  for (std::size_t rank = 0; rank < by_rank.size(); ++rank) {
    const RankDevice& device = by_rank[rank];
    if (!device.uuid.empty()) ranks[{device.host, device.uuid}].push_back(static_cast<int>(rank));
  }
  for (const auto& [place, sharing] : ranks) {
    if (sharing.size() == 1) continue;
    return fmt::format(
        "--device: {} compute on one GPU, {}; start one rank a GPU, or show each its own "
        "(CUDA_VISIBLE_DEVICES, srun --gpus-per-task=1)",
        ranks_on(sharing, place.first), place.second);
  }
  return {};
}

/// Replicas of the weights would drift apart.
std::string mixed_rounding(const std::vector<RankDevice>& by_rank) {
  std::vector<int> with;
  std::vector<int> without;
  for (std::size_t rank = 0; rank < by_rank.size(); ++rank)
    (by_rank[rank].multiply_adds ? with : without).push_back(static_cast<int>(rank));
  if (with.empty() || without.empty()) return {};
  const RankDevice& first = by_rank[static_cast<std::size_t>(without.front())];
  return fmt::format(
      "the CPUs of the ranks round otherwise: that of {} has no multiply-add instructions ({}), that of {} has; set "
      "VOCA_CPU_ARCH={} for every rank",
      ranks_on(without, first.host), first.kernels, list_of_ranks(with), first.kernels);
}

}  // namespace

std::optional<int> gpu_of_rank(int local_rank, int local_world_size, int gpus) {
  if (gpus >= local_world_size || local_rank < gpus) return local_rank;
  if (gpus == 1) return 0;
  return std::nullopt;
}

std::string text_of(const RankDevice& device) {
  return engine::json_text(
      nlohmann::ordered_json::array({device.host, static_cast<int>(device.kind), device.uuid, device.no_gpu,
                                     device.kernels, device.multiply_adds}));
}

RankDevice rank_device_of(const std::string& text) {
  const auto json = engine::parse_json(text, "the device of a rank");
  return {.host = json.at(0).get<std::string>(),
          .kind = static_cast<DeviceKind>(json.at(1).get<int>()),
          .uuid = json.at(2).get<std::string>(),
          .no_gpu = json.at(3).get<std::string>(),
          .kernels = json.at(4).get<std::string>(),
          .multiply_adds = json.at(5).get<bool>()};
}

std::string device_conflict(const std::vector<RankDevice>& by_rank) {
  for (const auto& find : {mixed_kinds, shared_gpu, mixed_rounding}) {
    if (std::string conflict = find(by_rank); !conflict.empty()) return conflict;
  }
  return {};
}

}  // namespace voca::tools
