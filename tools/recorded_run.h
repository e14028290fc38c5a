#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace voca::tools {

/// More than any config.json.
inline constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;

/// config.json of a run folder as `train` wrote it, with an object `options` of plain values, a whole
/// `world_size` and an object `data`; null where there is none, or it is another program's. Throws IoError,
/// or DataError when it is no JSON, larger than 1 MiB or passes a limit of parse_json().
[[nodiscard]] nlohmann::ordered_json recorded_config(const std::filesystem::path& run_dir);

}  // namespace voca::tools
