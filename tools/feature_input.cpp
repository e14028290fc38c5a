#include "tools/feature_input.h"

#include <fmt/format.h>

#include <system_error>

#include "data/feature_tree.h"
#include "data/pack.h"
#include "engine/atomic_file.h"
#include "engine/digest.h"
#include "engine/error.h"
#include "tools/version.h"

namespace voca::tools {
namespace {

using engine::IoError;

constexpr std::size_t kDigestLetters = 12;

/// What a tree is packed to.
struct CacheFile {
  std::filesystem::path path;
  std::string options;  ///< the part of the name that is the options'
};

bool keeps_folders(const data::FeatureTree& tree, const TreeOptions& options) {
  return tree.form == data::TreeForm::kSplitFolders && !options.split_is_asked_for;
}

CacheFile cache_file(const data::FeatureTree& tree, const TreeOptions& options) {
  const data::SplitRatios& ratios = options.split_ratios;
  const std::string key = keeps_folders(tree, options)
                              ? "pack 1, splits of the folders"
                              : fmt::format("pack 1, ratios {} {} {}, seed {}, group {}", ratios[0],
                                            ratios[1], ratios[2], options.split_seed, options.group_by);
  const std::string digest = engine::sha256_hex(key).substr(0, kDigestLetters);
  std::filesystem::path folder = std::filesystem::absolute(tree.root).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  folder += ".voca_cache";
  const std::string content = data::fingerprint(tree).substr(0, kDigestLetters);
  return {folder / (digest + "-" + content + ".h5"), digest};
}

/// Files of the same options and of what the tree was before.
void remove_outdated(const CacheFile& cache) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(cache.path.parent_path(), error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(cache.options + "-") && !name.starts_with(cache.path.filename().string()))
      std::filesystem::remove(entry.path(), error);
  }
}

void pack_tree(const data::FeatureTree& tree, const TreeOptions& options, const CacheFile& cache,
               engine::Progress& progress) {
  std::error_code error;
  std::filesystem::create_directories(cache.path.parent_path(), error);
  if (error) {
    throw IoError(
        "{}: cannot make the folder for the packed tree: {}; pack it elsewhere with voca-engine pack --out",
        cache.path.parent_path().string(), error.message());
  }
  progress.start("pack", 0);
  data::PackOptions pack;
  pack.features_root = tree.root;
  pack.out = cache.path;
  pack.split_seed = options.split_seed;
  pack.num_workers = static_cast<int>(options.num_workers);
  pack.created_by = version_line();
  pack.progress = [&](std::int64_t done, std::int64_t total) {
    progress.update({.done = done, .total = total});
  };
  if (!keeps_folders(tree, options)) {
    pack.split_ratios = options.split_ratios;
    pack.group_by = options.group_by;
  }
  const data::PackReport report = data::pack_features(pack);
  progress.finish();
  std::filesystem::path report_path = cache.path;
  report_path += ".report.json";
  engine::write_file_atomically(report_path, data::report_json(report) + "\n");
  std::string text = data::report_text(report);
  if (text.ends_with('\n')) text.pop_back();
  progress.message(text);
  progress.message("packed into " + cache.path.string());
  remove_outdated(cache);
}

}  // namespace

std::shared_ptr<const data::Dataset> open_features(const std::filesystem::path& features_root,
                                                   const TreeOptions& options, engine::Progress& progress) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(features_root, error);
  if (!std::filesystem::exists(status)) {
    throw IoError("--features_root {}: {}", features_root.string(),
                  error ? error.message() : "no such file or folder");
  }
  if (!std::filesystem::is_directory(status)) return std::make_shared<data::Dataset>(features_root);
  const data::FeatureTree tree = data::scan_feature_tree(features_root);
  const CacheFile cache = cache_file(tree, options);
  if (!std::filesystem::exists(cache.path)) pack_tree(tree, options, cache, progress);
  return std::make_shared<data::Dataset>(cache.path);
}

}  // namespace voca::tools
