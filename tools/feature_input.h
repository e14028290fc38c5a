#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "data/packed/dataset.h"
#include "data/packed/split.h"
#include "engine/telemetry/progress_bar.h"
#include "tools/options/option_set.h"

namespace voca::tools {

/// How --features_root is packed if it is a feature tree.
struct TreeOptions {
  data::SplitRatios split_ratios = data::kUsualRatios;
  std::uint64_t split_seed = 0;
  data::GroupBy group_by;
  /// Which of the three options were given. Existing splits, in a packed file or as folders, must match
  /// these.
  struct Given {
    bool split_ratios = false;
    bool split_seed = false;
    bool group_by = false;
  } given;
  int num_workers = 0;
  bool labels_needed = true;  ///< false: accepts a folder of unlabelled videos, or a single video
};

/// Throws IoError naming `option` if `path` does not exist or this process may not read it.
void check_readable(const char* option, const std::filesystem::path& path);

/// Opens --features_root. A packed file is opened directly. A feature tree is packed at its first use, and
/// again if the tree or the options changed, into <tree>.voca_cache/<options>-<content>.h5 beside it, or into
/// the user's cache folder if that is not writable. A single video is packed for this process only. Problems
/// with a tree's videos are reported through `progress`. Throws UsageError if existing splits differ from the
/// requested ones, DataError, IoError.
[[nodiscard]] std::shared_ptr<const data::Dataset> open_features(const std::filesystem::path& features_root,
                                                                 const TreeOptions& options,
                                                                 engine::ProgressBar& progress);

/// Sets the options of TreeOptions in `values`, by the names that `set` has for `tree`, to those of the
/// splits in use. Removes them if the dataset does not record them, as files of other programs may not.
void record_split(const OptionSet& set, const TreeOptions& tree, const data::Dataset& dataset,
                  nlohmann::ordered_json& values);

}  // namespace voca::tools
