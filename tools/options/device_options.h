#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/core/cuda_device.h"
#include "engine/core/device.h"
#include "engine/rendezvous/env_vars.h"

namespace voca::tools {

/// Value of --device.
struct DeviceChoice {
  enum class Kind : std::uint8_t { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  int index = -1;  ///< GPU index; −1: the first usable one

  static constexpr std::string_view kForm = "auto, cpu, cuda or cuda:N";
  [[nodiscard]] static std::optional<DeviceChoice> parse(std::string_view text);
  [[nodiscard]] std::string text() const;
};

/// Environment variable that launch sets to the number of GPUs found on the node.
inline constexpr const char* kLaunchedForGpus = "VOCA_LAUNCHED_FOR_GPUS";

struct DeviceOptions {
  DeviceChoice choice;       ///< --device
  std::int64_t threads = 0;  ///< --threads
  engine::CudaDeviceOptions cuda{};
};

/// The environment variable that shows that this process was started to compute on GPUs,
/// "CUDA_VISIBLE_DEVICES=0,1"; empty if there is none.
[[nodiscard]] std::string promised_gpus(const engine::EnvVars& variables);

/// Creates the device that --device selects. auto is the first usable GPU, or the CPU if there is none; a
/// build with CUDA then passes the reason to `note`. Throws UsageError with the reason if a requested GPU
/// cannot be used, and with auto if the process was started for GPUs.
[[nodiscard]] std::unique_ptr<engine::Device> make_device(
    const DeviceOptions& options, const std::function<void(const std::string&)>& note);

}  // namespace voca::tools
