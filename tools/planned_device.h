#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "engine/base/memory_limits.h"
#include "engine/core/dtype.h"
#include "engine/core/model.h"
#include "tools/options/device_options.h"

namespace voca::tools {

/// The device that `plan` plans for: a local device, or a GPU that is not present.
struct PlannedDevice {
  engine::DeviceKind kind = engine::DeviceKind::kCpu;
  std::string description;
  std::optional<engine::FreeMemory> free{};  ///< nullopt: unknown
  std::optional<double> flops_per_s{};       ///< upper bound of the GEMM rate; nullopt: unknown
  std::string flops_source{};                ///< source of flops_per_s
};

/// Peak rate of a GPU for dense GEMMs in `dtype`, in FLOP/s, from NVIDIA's data sheets (A100 80 GB, 2021, and
/// the A800, which differs in its links; H100, 2023; H200, 2024); nullopt for other GPUs.
[[nodiscard]] std::optional<double> peak_flops(std::string_view gpu, engine::DType dtype, bool allow_tf32);

/// Describes the device that `options` name. If it is a GPU that is not present, its memory is `gpu_memory`
/// bytes (0: unknown) and its rate is unknown. For a GPU that is present, `gpu_memory` replaces the free
/// memory unless it is 0. `dtype_on` returns the type that the run computes in on a device of a kind. Throws
/// UsageError for a GPU in a build without CUDA, which cannot dry-run one, and for `gpu_memory` with a CPU.
[[nodiscard]] PlannedDevice look_at_device(const DeviceOptions& options, std::size_t gpu_memory,
                                           const std::function<engine::DType(engine::DeviceKind)>& dtype_on,
                                           const std::function<void(const std::string&)>& note);

}  // namespace voca::tools
