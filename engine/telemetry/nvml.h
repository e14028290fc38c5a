#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// What the NVIDIA driver says of itself and its GPUs, through NVML (libnvidia-ml.so.1, part of the driver),
// which is opened at run time. The few declarations used are made here, after NVIDIA's "NVML API Reference
// Guide".

namespace voca::engine {

namespace nvml {

using Device = struct OpaqueDevice*;  ///< nvmlDevice_t

/// nvmlReturn_t, as far as it is told apart.
enum Status : int {
  kSuccess = 0,
  kNotSupported = 3,
  kDriverNotLoaded = 9,
  kFunctionNotFound = 13,
  kGpuIsLost = 15,
  kVersionMismatch = 18,  ///< NVML_ERROR_LIB_RM_VERSION_MISMATCH
};

/// nvmlMemory_t, bytes.
struct Memory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

// Values of NVML's enumerations.
inline constexpr int kUncorrected = 1;  ///< nvmlMemoryErrorType_t
inline constexpr int kVolatile = 0;     ///< nvmlEccCounterType_t: since the driver was loaded
inline constexpr int kSmClock = 1;      ///< nvmlClockType_t
inline constexpr int kMemoryClock = 2;
inline constexpr int kPeerRead = 0;  ///< nvmlGpuP2PCapsIndex_t
inline constexpr int kPeerNvlink = 2;
inline constexpr int kPeerOk = 0;  ///< nvmlGpuP2PStatus_t

/// Bits of nvmlDeviceGetCurrentClocksThrottleReasons that slow a GPU down against its owner's will.
inline constexpr std::uint64_t kPowerCap = 0x04;
inline constexpr std::uint64_t kHardwareSlowdown = 0x08;
inline constexpr std::uint64_t kSoftwareThermal = 0x20;
inline constexpr std::uint64_t kHardwareThermal = 0x40;
inline constexpr std::uint64_t kPowerBrake = 0x80;

/// NVML's functions, null where the library has none: a driver's library may be older than this program.
struct Functions {
  int (*init)() = nullptr;      ///< nvmlInit_v2
  int (*shutdown)() = nullptr;  ///< nvmlShutdown
  const char* (*error_string)(int) = nullptr;
  int (*driver_version)(char* text, unsigned length) = nullptr;
  int (*cuda_version)(int* version) = nullptr;  ///< of the driver: 1000 major + 10 minor
  int (*device_count)(unsigned* count) = nullptr;
  int (*device_by_index)(unsigned index, Device* device) = nullptr;
  int (*device_name)(Device, char* text, unsigned length) = nullptr;
  int (*compute_capability)(Device, int* major, int* minor) = nullptr;
  int (*memory)(Device, Memory*) = nullptr;
  int (*ecc_mode)(Device, int* current, int* pending) = nullptr;
  int (*ecc_errors)(Device, int error, int counter, unsigned long long* count) = nullptr;
  int (*clock)(Device, int clock, unsigned* mhz) = nullptr;
  int (*max_clock)(Device, int clock, unsigned* mhz) = nullptr;
  int (*throttle_reasons)(Device, unsigned long long* bits) = nullptr;
  int (*peer_status)(Device, Device, int capability, int* status) = nullptr;
};

/// Of the driver on this machine; nothing where there is no libnvidia-ml.so.1.
[[nodiscard]] std::optional<Functions> load();

}  // namespace nvml

/// One GPU, by NVML. What the driver or the device does not say is empty.
struct GpuState {
  unsigned index = 0;
  std::string name{};
  std::string problem{};  ///< why the rest is not known ("GPU is lost"); empty where it is
  int capability_major = 0;
  int capability_minor = 0;
  std::optional<std::uint64_t> total_bytes{};
  std::optional<std::uint64_t> free_bytes{};
  std::optional<bool> ecc{};                          ///< whether it is on
  std::optional<std::uint64_t> uncorrected_errors{};  ///< of all memories, since the driver was loaded
  std::optional<unsigned> sm_mhz{};
  std::optional<unsigned> max_sm_mhz{};
  std::optional<unsigned> memory_mhz{};
  std::optional<unsigned> max_memory_mhz{};
  std::optional<std::uint64_t> throttle{};  ///< bits as above
};

/// Two GPUs of one machine.
struct PeerLink {
  unsigned first = 0;
  unsigned second = 0;
  std::optional<bool> nvlink{};  ///< they reach each other over NVLink
  std::optional<bool> peer{};    ///< each reads the other's memory without the host
};

struct NvmlReport {
  bool library = false;
  std::string problem;        ///< why nothing could be asked; empty where all went well
  bool driver_loaded = true;  ///< false where the library is there and the kernel's driver is not
  std::string driver_version;
  std::optional<int> cuda_version;  ///< newest CUDA the driver runs: 1000 major + 10 minor
  std::vector<GpuState> gpus;
  std::vector<PeerLink> links;  ///< each pair once
};

/// Asks everything once. Errors are in the report, none is thrown. Null: there is no library.
[[nodiscard]] NvmlReport query_nvml(const nvml::Functions* functions);

}  // namespace voca::engine
