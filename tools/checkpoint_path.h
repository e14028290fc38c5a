#pragma once

#include <filesystem>

namespace voca::tools {

/// The checkpoint that a path names: of a run folder the one its run kept (--save_path as its config.json
/// says, best_model.pt without; with --no_val the last), found also where folder and checkpoint were moved
/// together. Any other path is returned as it is. Throws DataError naming the folder that is of no run, or
/// whose run has not kept a checkpoint yet.
[[nodiscard]] std::filesystem::path checkpoint_path(const std::filesystem::path& path);

}  // namespace voca::tools
