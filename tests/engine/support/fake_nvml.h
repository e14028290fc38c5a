#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/telemetry/nvml.h"

// An NVML that answers what a test puts into it. NVML's functions carry no context, so there is one machine.

namespace voca::engine::testing {

/// A node of healthy A800s; a test spoils what it is about.
struct FakeMachine {
  struct Gpu {
    int status = nvml::kSuccess;  ///< of nvmlDeviceGetHandleByIndex
    std::string name = "NVIDIA A800-SXM4-80GB";
    int major = 8;
    int minor = 0;
    nvml::Memory memory{.total = 80ULL << 30, .free = 79ULL << 30, .used = 1ULL << 30};
    bool has_ecc = true;
    int ecc = 1;
    unsigned long long uncorrected = 0;
    unsigned sm_mhz = 1410;
    unsigned long long throttle = 0;
  };

  int init = nvml::kSuccess;
  int count_status = nvml::kSuccess;
  std::string driver = "580.65.06";
  int cuda = 13000;
  std::vector<Gpu> gpus = std::vector<Gpu>(4);
  int nvlink = nvml::kPeerOk;  ///< of every pair
  int peer = nvml::kPeerOk;    ///< of every pair
  int broken_pair = -1;        ///< the first GPU of a pair with the next one that has no NVLink
  int shutdowns = 0;
};

inline FakeMachine& fake_machine() {
  static FakeMachine machine;
  return machine;
}

namespace fake {

inline std::uintptr_t index_of(nvml::Device device) {
  return reinterpret_cast<std::uintptr_t>(device) - 1;
}
inline FakeMachine::Gpu& gpu(nvml::Device device) {
  return fake_machine().gpus.at(index_of(device));
}
inline int write(const std::string& from, char* text, unsigned length) {
  if (from.size() + 1 > length) return 7;  // NVML_ERROR_INSUFFICIENT_SIZE
  std::copy(from.begin(), from.end(), text);
  text[from.size()] = 0;
  return nvml::kSuccess;
}

inline nvml::Functions functions() {
  nvml::Functions f;
  f.init = [] { return fake_machine().init; };
  f.shutdown = [] {
    ++fake_machine().shutdowns;
    return 0;
  };
  f.error_string = [](int status) { return status == nvml::kGpuIsLost ? "GPU is lost" : "some NVML error"; };
  f.driver_version = [](char* text, unsigned length) { return write(fake_machine().driver, text, length); };
  f.cuda_version = [](int* version) {
    *version = fake_machine().cuda;
    return 0;
  };
  f.device_count = [](unsigned* count) {
    *count = static_cast<unsigned>(fake_machine().gpus.size());
    return fake_machine().count_status;
  };
  f.device_by_index = [](unsigned index, nvml::Device* device) {
    *device = reinterpret_cast<nvml::Device>(static_cast<std::uintptr_t>(index) + 1);
    return fake_machine().gpus.at(index).status;
  };
  f.device_name = [](nvml::Device d, char* text, unsigned length) {
    return write(gpu(d).name, text, length);
  };
  f.compute_capability = [](nvml::Device d, int* major, int* minor) {
    *major = gpu(d).major;
    *minor = gpu(d).minor;
    return 0;
  };
  f.memory = [](nvml::Device d, nvml::Memory* memory) {
    *memory = gpu(d).memory;
    return 0;
  };
  f.ecc_mode = [](nvml::Device d, int* current, int* pending) -> int {
    *current = *pending = gpu(d).ecc;
    return gpu(d).has_ecc ? nvml::kSuccess : nvml::kNotSupported;
  };
  f.ecc_errors = [](nvml::Device d, int error, int counter, unsigned long long* count) -> int {
    *count = error == nvml::kUncorrected && counter == nvml::kVolatile ? gpu(d).uncorrected : 0;
    return gpu(d).has_ecc ? nvml::kSuccess : nvml::kNotSupported;
  };
  f.clock = [](nvml::Device d, int clock, unsigned* mhz) {
    *mhz = clock == nvml::kSmClock ? gpu(d).sm_mhz : 1593;
    return 0;
  };
  f.max_clock = [](nvml::Device, int clock, unsigned* mhz) {
    *mhz = clock == nvml::kSmClock ? 1410 : 1593;
    return 0;
  };
  f.throttle_reasons = [](nvml::Device d, unsigned long long* bits) {
    *bits = gpu(d).throttle;
    return 0;
  };
  f.peer_status = [](nvml::Device first, nvml::Device second, int capability, int* status) {
    const FakeMachine& machine = fake_machine();
    const auto low = static_cast<int>(std::min(index_of(first), index_of(second)));
    const bool broken = low == machine.broken_pair &&
                        std::max(index_of(first), index_of(second)) == static_cast<std::uintptr_t>(low) + 1;
    *status = capability == nvml::kPeerNvlink ? (broken ? 5 : machine.nvlink) : machine.peer;
    return 0;
  };
  return f;
}

}  // namespace fake
}  // namespace voca::engine::testing
