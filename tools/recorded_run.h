#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace voca::tools {

/// Maximum size of a config.json, in bytes.
inline constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;

/// config.json of a run folder as `train` writes it: with an object `options` of scalar values, an integer
/// `world_size` and an object `data`. Null if there is none, or if it is another program's. Throws IoError,
/// or DataError if it is not JSON, is larger than 1 MiB or exceeds a limit of parse_json().
[[nodiscard]] nlohmann::ordered_json recorded_config(const std::filesystem::path& run_dir);

}  // namespace voca::tools
