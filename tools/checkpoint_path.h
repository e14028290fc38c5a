#pragma once

#include <filesystem>

namespace voca::tools {

/// Resolves a path to a checkpoint. For a run folder this is the checkpoint that the run kept: --save_path as
/// its config.json records it, or best_model.pt by default; with --no_val, the last checkpoint. It is found
/// even if folder and checkpoint were moved together. Any other path is returned unchanged. Throws DataError
/// naming the folder if it is not a run folder or its run has not kept a checkpoint yet.
[[nodiscard]] std::filesystem::path checkpoint_path(const std::filesystem::path& path);

}  // namespace voca::tools
