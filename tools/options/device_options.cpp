#include "tools/options/device_options.h"

#include <charconv>

#include "engine/base/error.h"

namespace voca::tools {

DeviceChoice parse_device(const std::string& text) {
  constexpr std::string_view kIndexed = "cuda:";
  if (text == "auto") return {.kind = DeviceChoice::Kind::kAuto};
  if (text == "cpu") return {.kind = DeviceChoice::Kind::kCpu};
  if (text == "cuda") return {.kind = DeviceChoice::Kind::kCuda};
  if (text.starts_with(kIndexed)) {
    DeviceChoice choice{.kind = DeviceChoice::Kind::kCuda};
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + kIndexed.size(), end, choice.index);
    if (error == std::errc{} && rest == end && choice.index >= 0) return choice;
  }
  throw engine::UsageError("--device: \"{}\" is not one of auto, cpu, cuda, cuda:N", text);
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
  const DeviceChoice choice = parse_device(options.device);
  if (choice.kind != DeviceChoice::Kind::kCpu) {
    const engine::CudaAvailability cuda = engine::cuda_availability();
    if (cuda.devices > 0)
      return engine::make_cuda_device(choice.index < 0 ? cuda.first : choice.index, options.cuda);
    if (choice.kind == DeviceChoice::Kind::kCuda) {
      throw engine::UsageError("--device {}: {}; --device cpu computes without a GPU", options.device,
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

void check_threads(const char* option, std::int64_t threads) {
  constexpr std::int64_t kMaxThreads = 1024;
  if (threads < 0 || threads > kMaxThreads)
    throw engine::UsageError("{}: is {}, must be from 0 to {}", option, threads, kMaxThreads);
}

}  // namespace voca::tools
