#include "engine/telemetry/nvml.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "engine/base/shared_library.h"

namespace voca::engine {
namespace nvml {

std::optional<Functions> load() {
  const std::optional<SharedLibrary> library = SharedLibrary::open("libnvidia-ml.so.1");
  if (!library) return std::nullopt;
  Functions f;
  const auto find = [&]<typename Function>(Function& function, const char* name) {
    function = library->function<Function>(name);
  };
  find(f.init, "nvmlInit_v2");
  find(f.shutdown, "nvmlShutdown");
  find(f.error_string, "nvmlErrorString");
  find(f.driver_version, "nvmlSystemGetDriverVersion");
  find(f.cuda_version, "nvmlSystemGetCudaDriverVersion_v2");
  find(f.device_count, "nvmlDeviceGetCount_v2");
  find(f.device_by_index, "nvmlDeviceGetHandleByIndex_v2");
  find(f.device_name, "nvmlDeviceGetName");
  find(f.compute_capability, "nvmlDeviceGetCudaComputeCapability");
  find(f.memory, "nvmlDeviceGetMemoryInfo");
  find(f.ecc_mode, "nvmlDeviceGetEccMode");
  find(f.ecc_errors, "nvmlDeviceGetTotalEccErrors");
  find(f.clock, "nvmlDeviceGetClockInfo");
  find(f.max_clock, "nvmlDeviceGetMaxClockInfo");
  find(f.throttle_reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
  find(f.peer_status, "nvmlDeviceGetP2PStatus");
  return f;
}

}  // namespace nvml

namespace {

using nvml::Device;
using nvml::Functions;

// NVML needs 80 bytes for the driver version and 96 for a device name.
using Text = std::array<char, 128>;

template <typename Function, typename... Arguments>
int call(Function function, Arguments... arguments) {
  return function == nullptr ? nvml::kFunctionNotFound : function(arguments...);
}

/// The function's last output argument, if the call succeeds.
template <typename Value, typename Function, typename... Arguments>
std::optional<Value> ask(Function function, Arguments... arguments) {
  Value value{};
  if (call(function, arguments..., &value) != nvml::kSuccess) return std::nullopt;
  return value;
}

std::string describe(const Functions& f, int status) {
  if (status == nvml::kFunctionNotFound) return "the library lacks the function: it is of an old driver";
  return f.error_string != nullptr ? f.error_string(status) : fmt::format("NVML error {}", status);
}

GpuState query_gpu(const Functions& f, unsigned index, Device device) {
  GpuState gpu{.index = index};
  Text name{};
  if (call(f.device_name, device, name.data(), static_cast<unsigned>(name.size() - 1)) == nvml::kSuccess)
    gpu.name = name.data();
  const int status = call(f.compute_capability, device, &gpu.capability_major, &gpu.capability_minor);
  if (status != nvml::kSuccess) gpu.problem = describe(f, status);
  if (const auto memory = ask<nvml::Memory>(f.memory, device)) {
    gpu.total_bytes = memory->total;
    gpu.free_bytes = memory->free;
  }
  int ecc = 0;
  int pending = 0;
  if (call(f.ecc_mode, device, &ecc, &pending) == nvml::kSuccess) gpu.ecc = ecc != 0;
  gpu.uncorrected_errors = ask<unsigned long long>(f.ecc_errors, device, nvml::kUncorrected, nvml::kVolatile);
  gpu.sm_mhz = ask<unsigned>(f.clock, device, nvml::kSmClock);
  gpu.max_sm_mhz = ask<unsigned>(f.max_clock, device, nvml::kSmClock);
  gpu.memory_mhz = ask<unsigned>(f.clock, device, nvml::kMemoryClock);
  gpu.max_memory_mhz = ask<unsigned>(f.max_clock, device, nvml::kMemoryClock);
  gpu.throttle = ask<unsigned long long>(f.throttle_reasons, device);
  return gpu;
}

/// Whether both directions have a capability; nullopt if unknown.
std::optional<bool> both_ways(const Functions& f, Device first, Device second, int capability) {
  const auto there = ask<int>(f.peer_status, first, second, capability);
  const auto back = ask<int>(f.peer_status, second, first, capability);
  if (!there || !back) return std::nullopt;
  return *there == nvml::kPeerOk && *back == nvml::kPeerOk;
}

void query_devices(const Functions& f, NvmlReport& report) {
  unsigned count = 0;
  if (const int status = call(f.device_count, &count); status != nvml::kSuccess) {
    report.problem = "the GPUs cannot be counted: " + describe(f, status);
    return;
  }
  std::vector<std::pair<unsigned, Device>> found;
  for (unsigned index = 0; index < count; ++index) {
    Device device = nullptr;
    const int status = call(f.device_by_index, index, &device);
    if (status == nvml::kSuccess) {
      report.gpus.push_back(query_gpu(f, index, device));
      found.emplace_back(index, device);
    } else {
      report.gpus.push_back({.index = index, .problem = describe(f, status)});
    }
  }
  for (std::size_t i = 0; i < found.size(); ++i) {
    for (std::size_t j = i + 1; j < found.size(); ++j) {
      const auto& [first, first_device] = found[i];
      const auto& [second, second_device] = found[j];
      report.links.push_back({.first = first,
                              .second = second,
                              .nvlink = both_ways(f, first_device, second_device, nvml::kPeerNvlink),
                              .peer = both_ways(f, first_device, second_device, nvml::kPeerRead)});
    }
  }
}

}  // namespace

NvmlReport query_nvml(const Functions* functions) {
  NvmlReport report;
  if (functions == nullptr) return report;
  const Functions& f = *functions;
  report.library = true;
  if (const int status = call(f.init); status != nvml::kSuccess) {
    report.driver_loaded = status != nvml::kDriverNotLoaded;
    report.problem = describe(f, status);
    if (status == nvml::kVersionMismatch)
      report.problem += " (the driver was updated and the old one is still loaded): reboot";
    return report;
  }
  Text version{};
  if (call(f.driver_version, version.data(), static_cast<unsigned>(version.size() - 1)) == nvml::kSuccess)
    report.driver_version = version.data();
  report.cuda_version = ask<int>(f.cuda_version);
  query_devices(f, report);
  static_cast<void>(call(f.shutdown));
  return report;
}

}  // namespace voca::engine
