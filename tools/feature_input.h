#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "data/packed/dataset.h"
#include "data/packed/split.h"
#include "engine/telemetry/progress_bar.h"

namespace voca::tools {

/// How a feature tree is packed when --features_root is one.
struct TreeOptions {
  data::SplitRatios split_ratios{0.6, 0.2, 0.2};
  std::uint64_t split_seed = 0;
  std::string group_by = "none";
  /// Which of the three somebody gave. Splits that are there already, in a packed file or as folders, must be
  /// the ones asked for.
  struct Given {
    bool split_ratios = false;
    bool split_seed = false;
    bool group_by = false;
  } given;
  std::int64_t num_workers = 0;
  bool labels_needed = true;  ///< false: a folder of videos without labels will do, or one video's
};

/// Throws IoError naming the option when this process may not read what it names, or there is none.
void check_readable(const char* option, const std::filesystem::path& path);

/// Opens --features_root: a packed file as it is; a feature tree through a packed file beside it,
/// <tree>.voca_cache/<options>-<content>.h5, or in the user's cache folder where that cannot be written. It
/// is made at the first use and again when the tree or the options changed. One video is packed for this
/// process alone. What is wrong with a tree's videos is said through `progress`. Throws UsageError for splits
/// other than those asked for, DataError, IoError.
[[nodiscard]] std::shared_ptr<const data::Dataset> open_features(const std::filesystem::path& features_root,
                                                                 const TreeOptions& options,
                                                                 engine::ProgressBar& progress);

/// Sets split_ratios, split_seed and group_by in a command's options to those of the splits in use. Files of
/// others may not say: the options are taken out then.
void record_split(nlohmann::ordered_json& options, const data::Dataset& dataset);

}  // namespace voca::tools
