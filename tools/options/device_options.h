#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/core/cuda_device.h"
#include "engine/core/device.h"
#include "engine/rendezvous/env_vars.h"

namespace voca::tools {

/// What --device asks for.
struct DeviceChoice {
  enum class Kind : std::uint8_t { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  int index = -1;  ///< of the GPU; −1: the first that can be used
};

/// "auto", "cpu", "cuda", "cuda:N"; throws UsageError naming --device for anything else.
[[nodiscard]] DeviceChoice parse_device(const std::string& text);

/// Set by launch to the number of GPUs that it found on the node.
inline constexpr const char* kLaunchedForGpus = "VOCA_LAUNCHED_FOR_GPUS";

struct DeviceOptions {
  std::string device = "auto";  ///< --device
  std::int64_t threads = 0;     ///< --threads
  engine::CudaDeviceOptions cuda{};
};

/// What says that this process was started to compute on GPUs, "CUDA_VISIBLE_DEVICES=0,1"; empty where
/// nothing does.
[[nodiscard]] std::string promised_gpus(const engine::EnvVars& variables);

/// Makes the device that --device asks for. auto is the first GPU that can be used, and where there is none
/// the CPU, which `note` is told with the reason, in a build with CUDA. Throws UsageError when a GPU is asked
/// for that cannot be used, saying why; with auto, too, where the process was started for GPUs.
[[nodiscard]] std::unique_ptr<engine::Device> make_device(
    const DeviceOptions& options, const std::function<void(const std::string&)>& note);

/// Throws UsageError naming `option` unless `threads` is from 0 to 1024: beyond that threads cost more than
/// they compute, and the system refuses them.
void check_threads(const char* option, std::int64_t threads);

}  // namespace voca::tools
