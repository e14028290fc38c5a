#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "data/dataset.h"
#include "data/split.h"
#include "engine/progress.h"

namespace voca::tools {

/// How a feature tree is packed when --features_root is one.
struct TreeOptions {
  data::SplitRatios split_ratios{0.6, 0.2, 0.2};
  std::uint64_t split_seed = 0;
  std::string group_by = "none";
  /// Whether somebody asked for ratios or groups: a tree that has splits as folders then refuses them, and
  /// keeps to its folders otherwise.
  bool split_is_asked_for = false;
  std::int64_t num_workers = 0;
};

/// Opens --features_root: a packed file as it is; a feature tree through a packed file beside it,
/// <tree>.voca_cache/<options>-<content>.h5, made at the first use and again when the tree or the options
/// changed. A tree's quarantined videos are named through `progress`. Throws UsageError, DataError, IoError.
[[nodiscard]] std::shared_ptr<const data::Dataset> open_features(const std::filesystem::path& features_root,
                                                                 const TreeOptions& options,
                                                                 engine::Progress& progress);

}  // namespace voca::tools
