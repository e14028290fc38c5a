#include "tools/gpu_findings.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/comm/nccl_version.h"
#include "tools/version.h"

namespace voca::tools {
namespace {

namespace nvml = engine::nvml;
using engine::GpuState;
using engine::NvmlReport;
using engine::PeerLink;

/// Major version number; 0 if the text does not begin with a number.
int major_of(const std::string& version) {
  int major = 0;
  std::from_chars(version.data(), version.data() + version.size(), major);
  return major;
}

/// Oldest driver, by major version, that runs programs of a toolkit (CUDA Compatibility, "minor version
/// compatibility"); 0 if unknown.
int oldest_driver(int toolkit_major) {
  if (toolkit_major == 12) return 525;
  return toolkit_major == 13 ? 580 : 0;
}

Finding judge_driver(const NvmlReport& report, const std::string& toolkit) {
  std::string text =
      "driver " + (report.driver_version.empty() ? "of unknown version" : report.driver_version);
  if (report.cuda_version) {
    text +=
        fmt::format(", runs CUDA up to {}.{}", *report.cuda_version / 1000, *report.cuda_version % 1000 / 10);
  }
  if (toolkit.empty()) return {"driver", Verdict::kOk, text + "; this build has no CUDA toolkit"};
  const int needed = oldest_driver(major_of(toolkit));
  text += fmt::format("; this build's CUDA {} ", toolkit);
  if (needed == 0 || report.driver_version.empty())
    return {"driver", Verdict::kWarning, text + "may need another: see NVIDIA's CUDA compatibility table"};
  text += fmt::format("needs {} or newer", needed);
  if (major_of(report.driver_version) >= needed) return {"driver", Verdict::kOk, text};
  text += "; update the driver";
  if (needed > oldest_driver(12) && major_of(report.driver_version) >= oldest_driver(12))
    text += ", or build with CUDA 12, which needs 525";
  return {"driver", Verdict::kWarning, text};
}

double gib(std::uint64_t bytes) {
  return static_cast<double>(bytes) / 1073741824.0;
}

Finding judge_device(const GpuState& gpu) {
  const std::string what = fmt::format("gpu {}", gpu.index);
  std::string text = gpu.name.empty() ? "a GPU without a name" : gpu.name;
  if (!gpu.problem.empty()) {
    return {what, Verdict::kProblem,
            fmt::format("{}: {}; reset it (nvidia-smi -r -i {}) or reboot, and look at dmesg for Xid", text,
                        gpu.problem, gpu.index)};
  }
  text += fmt::format(", compute capability {}.{}", gpu.capability_major, gpu.capability_minor);
  if (gpu.total_bytes && gpu.free_bytes)
    text += fmt::format(", {:.1f} of {:.1f} GiB free", gib(*gpu.free_bytes), gib(*gpu.total_bytes));
  if (gpu.capability_major < 8) {
    return {what, Verdict::kWarning,
            text + "; the kernels need 8.0 or newer: leave it out with CUDA_VISIBLE_DEVICES"};
  }
  if (gpu.total_bytes && gpu.free_bytes && *gpu.free_bytes < *gpu.total_bytes / 2) {
    return {what, Verdict::kWarning, text + "; other processes hold the rest: nvidia-smi names them"};
  }
  return {what, Verdict::kOk, text};
}

Finding judge_ecc(const GpuState& gpu) {
  const std::string what = fmt::format("gpu {} ecc", gpu.index);
  if (gpu.uncorrected_errors.value_or(0) > 0) {
    return {what, Verdict::kProblem,
            fmt::format("{} uncorrected memory errors since the driver was loaded: train elsewhere, reset it "
                        "(nvidia-smi -r -i {}) or reboot, and replace it if they return",
                        *gpu.uncorrected_errors, gpu.index)};
  }
  if (!gpu.ecc) return {what, Verdict::kOk, "not reported: this GPU has none"};
  if (!*gpu.ecc) {
    return {what, Verdict::kWarning,
            fmt::format("off: a flipped bit goes unseen; nvidia-smi -e 1 -i {} and reboot", gpu.index)};
  }
  return {what, Verdict::kOk,
          gpu.uncorrected_errors ? "on, no uncorrected error since the driver was loaded"
                                 : "on, errors are not reported"};
}

std::string mhz(const char* which, std::optional<unsigned> now, std::optional<unsigned> most) {
  if (!now || !most) return fmt::format("{} clock not reported", which);
  return fmt::format("{} {} of {} MHz", which, *now, *most);
}

Finding judge_clocks(const GpuState& gpu) {
  const std::string what = fmt::format("gpu {} clocks", gpu.index);
  std::string text =
      mhz("SM", gpu.sm_mhz, gpu.max_sm_mhz) + ", " + mhz("memory", gpu.memory_mhz, gpu.max_memory_mhz);
  if (!gpu.throttle) return {what, Verdict::kOk, text + ", throttling not reported"};
  const std::uint64_t bits = *gpu.throttle;
  const auto warn = [&](const char* why) { return Finding{what, Verdict::kWarning, text + why}; };
  if ((bits & (nvml::kHardwareThermal | nvml::kSoftwareThermal)) != 0)
    return warn("; throttled, too hot: look at fans, airflow and the room");
  if ((bits & nvml::kPowerBrake) != 0)
    return warn("; throttled by the power brake: look at the power supply and its cables");
  if ((bits & nvml::kHardwareSlowdown) != 0)
    return warn("; slowed down by the hardware (heat or power): nvidia-smi -q -d PERFORMANCE says more");
  if ((bits & nvml::kPowerCap) != 0) text += ", at its power limit, as is usual under load";
  return {what, Verdict::kOk, text};
}

Finding judge_links(const std::vector<PeerLink>& links) {
  std::vector<std::string> over_nvlink;
  std::vector<std::string> over_pcie;
  std::vector<std::string> through_host;
  std::vector<std::string> unknown;
  for (const PeerLink& link : links) {
    auto& alike = link.nvlink.value_or(false) ? over_nvlink
                  : !link.peer                ? unknown
                  : *link.peer                ? over_pcie
                                              : through_host;
    alike.push_back(fmt::format("{}-{}", link.first, link.second));
  }
  if (over_nvlink.size() == links.size()) return {"links", Verdict::kOk, "all pairs over NVLink"};
  if (unknown.size() == links.size())
    return {"links", Verdict::kWarning, "not reported by this driver; nvidia-smi topo -m may say"};
  std::string text;
  const auto add = [&](const char* how, const std::vector<std::string>& pairs) {
    if (pairs.empty()) return;
    text += fmt::format("{}{} {}", text.empty() ? "" : "; ", how, fmt::join(pairs, ", "));
  };
  add("over NVLink:", over_nvlink);
  add("over PCIe, peer to peer:", over_pcie);
  add("through the host's memory:", through_host);
  add("not reported:", unknown);
  if (!through_host.empty()) {
    return {"links", Verdict::kWarning,
            text +
                "; peer to peer is off there, which slows gradients down: nvidia-smi topo -m and -p2p r say "
                "why (often ACS or the IOMMU; in a virtual machine its host)"};
  }
  if (!over_nvlink.empty()) {
    return {
        "links", Verdict::kWarning,
        text + "; rings are as fast as their slowest link: nvidia-smi nvlink -s shows links that are down"};
  }
  return {"links", Verdict::kOk, text + "; no NVLink: gradients travel over PCIe"};
}

Finding judge_nccl(std::optional<int> version, std::size_t gpus) {
  if (!version) {
    if (gpus < 2) return {"nccl", Verdict::kOk, "no libnccl.so.2; one GPU or none needs none"};
    return {"nccl", Verdict::kWarning, "no libnccl.so.2: several GPUs need it; install libnccl2"};
  }
  const engine::NcclVersion found = engine::nccl_version(*version);
  const std::string text = "NCCL " + found.text;
  if (found.advice.empty()) return {"nccl", Verdict::kOk, text};
  return {"nccl", Verdict::kWarning, text + ": " + found.advice};
}

Finding no_library(bool kernel_driver) {
  if (!kernel_driver) return {"driver", Verdict::kOk, "no NVIDIA driver here; the CPU engine needs none"};
  return {"driver", Verdict::kWarning,
          "an NVIDIA driver is loaded, but its library libnvidia-ml.so.1 is not found; install the driver's "
          "libraries, or in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility"};
}

}  // namespace

GpuFacts look_for_gpus() {
  const std::optional<nvml::Functions> functions = nvml::load();
  return {.nvml = engine::query_nvml(functions ? &*functions : nullptr),
          .kernel_driver = std::filesystem::exists("/proc/driver/nvidia/version"),
          .toolkit = versions()["cuda_toolkit"].get<std::string>(),
          .nccl_version = engine::find_nccl()};
}

std::vector<Finding> judge_gpus(const GpuFacts& facts) {
  const NvmlReport& report = facts.nvml;
  std::vector<Finding> findings;
  if (!report.library) {
    findings.push_back(no_library(facts.kernel_driver));
  } else if (!report.driver_loaded) {
    findings.push_back({"driver", Verdict::kWarning,
                        "installed, but not loaded: modprobe nvidia (dmesg says why it fails), or reboot"});
  } else if (report.driver_version.empty() && !report.problem.empty()) {
    findings.push_back({"driver", Verdict::kWarning, "does not answer: " + report.problem});
  } else {
    findings.push_back(judge_driver(report, facts.toolkit));
    if (!report.problem.empty()) {
      findings.push_back({"gpus", Verdict::kWarning, report.problem + "; look at dmesg, reboot"});
    } else if (report.gpus.empty()) {
      findings.push_back(
          {"gpus", Verdict::kWarning, "the driver finds none: lspci shows whether the system does"});
    }
  }
  for (const GpuState& gpu : report.gpus) {
    findings.push_back(judge_device(gpu));
    if (!gpu.problem.empty()) continue;
    findings.push_back(judge_ecc(gpu));
    findings.push_back(judge_clocks(gpu));
  }
  if (!report.links.empty()) findings.push_back(judge_links(report.links));
  findings.push_back(judge_nccl(facts.nccl_version, report.gpus.size()));
  return findings;
}

}  // namespace voca::tools
