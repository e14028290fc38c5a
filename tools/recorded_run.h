#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace voca::tools {

/// config.json of a run folder as `train` wrote it, with `options` and `world_size`; null where there is
/// none, or another program's. Throws IoError, or DataError when it is larger than 1 MiB.
[[nodiscard]] nlohmann::ordered_json recorded_config(const std::filesystem::path& run_dir);

}  // namespace voca::tools
