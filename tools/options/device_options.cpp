#include "tools/options/device_options.h"

#include "engine/base/error.h"
#include "engine/base/text.h"

namespace voca::tools {

std::optional<DeviceChoice> DeviceChoice::parse(std::string_view text) {
  constexpr std::string_view kIndexed = "cuda:";
  for (const Kind kind : {Kind::kAuto, Kind::kCpu, Kind::kCuda})
    if (const DeviceChoice choice{.kind = kind}; choice.text() == text) return choice;
  if (!text.starts_with(kIndexed)) return std::nullopt;
  const auto index = engine::number_in<int>(text.substr(kIndexed.size()));
  if (!index || *index < 0) return std::nullopt;
  return DeviceChoice{.kind = Kind::kCuda, .index = *index};
}

std::string DeviceChoice::text() const {
  if (kind == Kind::kAuto) return "auto";
  if (kind == Kind::kCpu) return "cpu";
  return index < 0 ? "cuda" : fmt::format("cuda:{}", index);
}

std::string promised_gpus(const engine::EnvVars& variables) {
  for (const char* name :
       {kLaunchedForGpus, "CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE",
        "SLURM_GPUS", "SLURM_GPUS_PER_NODE", "SLURM_GPUS_PER_TASK"}) {
    const std::string value = variables.text(name);
    const bool none = value.empty() || value == "0" || value == "-1" || value == "NoDevFiles";
    // "0" is a number of GPUs in some variables, and the index of the first GPU in others.
    const bool first_gpu = value == "0" && (std::string_view(name) == "CUDA_VISIBLE_DEVICES" ||
                                            std::string_view(name).ends_with("_STEP_GPUS") ||
                                            std::string_view(name).ends_with("_JOB_GPUS"));
    if (!none || first_gpu) return fmt::format("{}={}", name, value);
  }
  return {};
}

std::unique_ptr<engine::Device> make_device(const DeviceOptions& options,
                                            const std::function<void(const std::string&)>& note) {
  const DeviceChoice& choice = options.choice;
  if (choice.kind != DeviceChoice::Kind::kCpu) {
    const engine::CudaAvailability cuda = engine::cuda_availability();
    if (cuda.devices > 0)
      return engine::make_cuda_device(choice.index < 0 ? cuda.first : choice.index, options.cuda);
    if (choice.kind == DeviceChoice::Kind::kCuda) {
      throw engine::UsageError("--device {}: {}; --device cpu computes without a GPU", choice.text(),
                               cuda.reason);
    }
    if (const std::string promise = promised_gpus(engine::EnvVars::of_process()); !promise.empty()) {
      throw engine::UsageError(
          "--device auto: {}, though {} says to compute on a GPU; mend that, or give "
          "--device cpu to compute without",
          cuda.reason, promise);
    }
    if (engine::built_with_cuda()) note(fmt::format("computing on the CPU: {}", cuda.reason));
  }
  return engine::make_cpu_device(static_cast<int>(options.threads));
}

}  // namespace voca::tools
