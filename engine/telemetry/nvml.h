#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

// State of the NVIDIA driver and its GPUs, queried through NVML (libnvidia-ml.so.1, part of the driver),
// which is opened at run time. The few declarations needed are repeated here, after NVIDIA's "NVML API
// Reference Guide".

namespace voca::engine {

namespace nvml {

using Device = struct OpaqueDevice*;  ///< nvmlDevice_t

/// Values of nvmlReturn_t that are handled.
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

// Values of other NVML enumerations.
inline constexpr int kUncorrected = 1;  ///< nvmlMemoryErrorType_t
inline constexpr int kVolatile = 0;     ///< nvmlEccCounterType_t: since the driver was loaded
inline constexpr int kSmClock = 1;      ///< nvmlClockType_t
inline constexpr int kMemoryClock = 2;
inline constexpr int kPeerRead = 0;  ///< nvmlGpuP2PCapsIndex_t
inline constexpr int kPeerNvlink = 2;
inline constexpr int kPeerOk = 0;  ///< nvmlGpuP2PStatus_t

/// Bits of nvmlDeviceGetCurrentClocksThrottleReasons for unwanted throttling.
inline constexpr std::uint64_t kPowerCap = 0x04;
inline constexpr std::uint64_t kHardwareSlowdown = 0x08;
inline constexpr std::uint64_t kSoftwareThermal = 0x20;
inline constexpr std::uint64_t kHardwareThermal = 0x40;
inline constexpr std::uint64_t kPowerBrake = 0x80;

/// NVML's functions; null if missing, because the driver's library may be older than this program.
struct Functions {
  int (*init)() = nullptr;      ///< nvmlInit_v2
  int (*shutdown)() = nullptr;  ///< nvmlShutdown
  const char* (*error_string)(int) = nullptr;
  int (*driver_version)(char* text, unsigned length) = nullptr;
  int (*cuda_version)(int* version) = nullptr;  ///< supported by the driver: 1000 major + 10 minor
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

/// Functions of the installed driver's library; nullopt without libnvidia-ml.so.1.
[[nodiscard]] std::optional<Functions> load();

}  // namespace nvml

/// State of one GPU from NVML. A field that the driver or device does not report is empty.
struct GpuState {
  unsigned index = 0;
  std::string name{};
  std::string problem{};  ///< why the other fields are unknown ("GPU is lost"); empty if known
  int capability_major = 0;
  int capability_minor = 0;
  std::optional<std::uint64_t> total_bytes{};
  std::optional<std::uint64_t> free_bytes{};
  std::optional<bool> ecc{};                          ///< whether ECC is enabled
  std::optional<std::uint64_t> uncorrected_errors{};  ///< in all memories, since the driver was loaded
  std::optional<unsigned> sm_mhz{};
  std::optional<unsigned> max_sm_mhz{};
  std::optional<unsigned> memory_mhz{};
  std::optional<unsigned> max_memory_mhz{};
  std::optional<std::uint64_t> throttle{};  ///< throttle reasons, bits as above
};

/// Connection between two GPUs of a machine.
struct PeerLink {
  unsigned first = 0;
  unsigned second = 0;
  std::optional<bool> nvlink{};  ///< connected over NVLink
  std::optional<bool> peer{};    ///< each can read the other's memory directly
};

struct NvmlReport {
  bool library = false;
  std::string problem;        ///< why the query failed; empty on success
  bool driver_loaded = true;  ///< false if the library is present but the kernel driver is not loaded
  std::string driver_version;
  std::optional<int> cuda_version;  ///< newest CUDA version that the driver supports: 1000 major + 10 minor
  std::vector<GpuState> gpus;
  std::vector<PeerLink> links;  ///< each pair once
};

/// Queries all GPUs once. Does not throw: errors are in the report. `functions` null means that there is no
/// library.
[[nodiscard]] NvmlReport query_nvml(const nvml::Functions* functions);

}  // namespace voca::engine
