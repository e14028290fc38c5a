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

/// What `plan` plans for: a device that is here, or a GPU that is not.
struct PlannedDevice {
  engine::DeviceKind kind = engine::DeviceKind::kCpu;
  std::string description;
  std::optional<engine::FreeMemory> free;  ///< nothing: not known
  std::optional<double> flops_per_s;       ///< what matrix products cannot beat; nothing: not known
  std::string flops_source;                ///< where that number is from
};

/// A GPU's peak on matrix products of `dtype`, dense, in FLOP/s, by NVIDIA's data sheets (A100 80 GB, 2021,
/// and the A800, which differs in its links; H100, 2023; H200, 2024); nothing for a GPU that is not in them.
[[nodiscard]] std::optional<double> peak_flops(std::string_view gpu, engine::DType dtype, bool allow_tf32);

/// For the device that `options` name. A GPU may be named that is not here: then its memory is `gpu_memory`
/// bytes, 0 not known, and its rate is not known. A GPU that is here is planned for with `gpu_memory` too
/// where that is given. `dtype_on` says what the run computes in on a device of that kind. Throws UsageError
/// for a GPU in a build without CUDA, which has no dry run of one.
[[nodiscard]] PlannedDevice look_at_device(const DeviceOptions& options, std::size_t gpu_memory,
                                           const std::function<engine::DType(engine::DeviceKind)>& dtype_on,
                                           const std::function<void(const std::string&)>& note);

}  // namespace voca::tools
