#include "tools/feature_input.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "data/packed/pack.h"
#include "data/tree/feature_tree.h"
#include "engine/base/atomic_file.h"
#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/signals.h"
#include "engine/cuda/algorithm_cache.h"
#include "tools/version.h"

namespace voca::tools {
namespace {

namespace fs = std::filesystem;
using engine::DataError;
using engine::IoError;
using engine::UsageError;

constexpr std::size_t kDigestLetters = 12;

std::string short_digest(const std::string& text) {
  return engine::sha256_hex(text).substr(0, kDigestLetters);
}

/// The existing splits of a dataset.
struct Splits {
  std::vector<double> ratios;  ///< empty: unknown, as are the other fields
  std::uint64_t seed = 0;
  std::string group_by;
};

Splits splits_of(const data::Dataset& dataset) {
  const data::DatasetSummary& summary = dataset.summary();
  if (summary.split_ratios.size() != data::kSplits) return {};
  return {summary.split_ratios, summary.split_seed, summary.group_by};
}

Splits splits_of(const data::FeatureTree& tree) {
  Splits splits{std::vector<double>(data::kSplits), 0, "none"};
  for (const data::VideoFolder& video : tree.videos)
    splits.ratios[static_cast<std::size_t>(video.split)] += 1.0;
  for (double& share : splits.ratios) share /= static_cast<double>(tree.videos.size());
  return splits;
}

bool same_ratios(const data::SplitRatios& asked, const std::vector<double>& found) {
  constexpr double kTolerance = 1e-6;  // as in SplitRatios::parse()
  return std::equal(asked.begin(), asked.end(), found.begin(), found.end(),
                    [](double a, double b) { return std::abs(a - b) <= kTolerance; });
}

/// Throws UsageError naming the first given option that differs from the existing splits. `found` says where
/// these come from, "a.h5 was packed with"; `otherwise` names an alternative to leaving the option out.
void check_given(const TreeOptions& options, const Splits& splits, const std::string& found,
                 const std::string& otherwise) {
  const bool known = !splits.ratios.empty();
  const auto check = [&](bool given, const char* option, const std::string& asked, bool same,
                         const std::string& value) {
    if (!given || (known && same)) return;
    throw UsageError("--{} {}: {} {}; leave the option out{}", option, asked, found,
                     known ? fmt::format("{} {}", option, value) : "options that it does not tell",
                     otherwise);
  };
  check(options.given.split_ratios, "split_ratios", options.split_ratios.text(),
        same_ratios(options.split_ratios, splits.ratios), fmt::format("{}", fmt::join(splits.ratios, ",")));
  check(options.given.split_seed, "split_seed", std::to_string(options.split_seed),
        options.split_seed == splits.seed, std::to_string(splits.seed));
  check(options.given.group_by, "group_by", options.group_by.text(),
        options.group_by.text() == splits.group_by, splits.group_by);
}

void refuse_without_labels(const fs::path& path) {
  throw DataError(
      "{}: has no labels, which train and eval need; put the videos into real/ and fake/, or into train/, "
      "dev/ and test/ with frame_labels; predict works without",
      path.string());
}

bool has_labels(const data::Dataset& dataset) {
  const auto& counts = dataset.summary().counts;
  return std::ranges::any_of(counts, [](const std::vector<std::int64_t>& of_split) {
    return std::any_of(of_split.begin(), of_split.end() - 1, [](std::int64_t n) { return n > 0; });
  });
}

std::shared_ptr<const data::Dataset> open_packed(const fs::path& path, const TreeOptions& options) {
  auto dataset = std::make_shared<const data::Dataset>(path);
  check_given(options, splits_of(*dataset), fmt::format("{} was packed with", path.string()),
              ", or pack the tree again with it");
  if (options.labels_needed && !has_labels(*dataset)) refuse_without_labels(path);
  return dataset;
}

/// File name of a packed tree in a cache folder.
struct CacheName {
  std::string file;     ///< "<options>-<content>.h5"
  std::string options;  ///< the <options> part of the name
};

CacheName cache_name(const data::FeatureTree& tree, const TreeOptions& options) {
  const data::SplitRatios& ratios = options.split_ratios;
  std::string key = "pack 1, splits of the folders";
  if (tree.form == data::TreeForm::kUnlabelled) key = "pack 1, without labels";
  if (tree.form == data::TreeForm::kClassFolders) {
    key = fmt::format("pack 1, ratios {} {} {}, seed {}, group {}", ratios[0], ratios[1], ratios[2],
                      options.split_seed, options.group_by.text());
  }
  const std::string digest = short_digest(key);
  const std::string content = data::fingerprint(tree).substr(0, kDigestLetters);
  return {digest + "-" + content + ".h5", digest};
}

/// Folders that may hold a tree's packed files: one beside it, and one in the user's cache folder.
std::vector<fs::path> cache_folders(const fs::path& root) {
  fs::path folder = fs::absolute(root).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  fs::path beside = folder;
  beside += ".voca_cache";
  std::vector<fs::path> folders{beside};
  if (const fs::path cache = engine::AlgorithmCache::default_folder(); !cache.empty()) {
    folders.push_back(cache / "trees" /
                      fmt::format("{}-{}", folder.filename().string(), short_digest(folder.string())));
  }
  return folders;
}

/// The first folder that is writable; reports it if it is not the one beside the tree.
fs::path writable_folder(const fs::path& root, const std::vector<fs::path>& folders,
                         engine::ProgressBar& progress) {
  std::string why;
  for (const fs::path& folder : folders) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (!error && ::access(folder.c_str(), W_OK | X_OK) != 0) error.assign(errno, std::generic_category());
    if (!error) {
      if (!why.empty()) progress.message(fmt::format("{}; packing into {}", why, folder.string()));
      return folder;
    }
    why +=
        fmt::format("{}{}: cannot be written: {}", why.empty() ? "" : "; ", folder.string(), error.message());
  }
  throw IoError(
      "{}; pack the tree elsewhere, voca-engine pack --features_root {} --out F.h5, and name that file", why,
      root.string());
}

/// Removes packed files of earlier contents of the tree with the same options, and temporary files of killed
/// processes.
void remove_outdated(const fs::path& folder, const CacheName& name) {
  std::error_code error;
  std::vector<fs::path> outdated;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::string other = entry->path().filename().string();
    const bool temporary = other.starts_with(".");
    if (temporary) other = other.substr(1, other.rfind('.') - 1);
    if (!other.starts_with(name.options + "-") || other.starts_with(name.file)) continue;
    if (temporary) {
      engine::remove_stale_temporaries(folder / other);
    } else {
      outdated.push_back(entry->path());
    }
  }
  for (const fs::path& file : outdated) fs::remove(file, error);
}

data::PackReport pack_tree(const data::FeatureTree& tree, const TreeOptions& options, const fs::path& out,
                           engine::ProgressBar& progress,
                           std::function<void(const data::PackReport&)> before_commit = {}) {
  progress.start("pack", 0);
  data::PackOptions pack;
  pack.features_root = tree.root;
  pack.out = out;
  pack.num_workers = options.num_workers;
  pack.created_by = version_line();
  pack.progress = [&](std::int64_t done, std::int64_t total) {
    progress.update({.done = done, .total = total});
  };
  if (tree.form == data::TreeForm::kClassFolders) {
    pack.split_ratios = options.split_ratios;
    pack.split_seed = options.split_seed;
    pack.group_by = options.group_by;
  }
  const engine::StopSignals signals;
  pack.check_stop = [&] { signals.check("packing the features"); };
  pack.before_commit = std::move(before_commit);
  data::PackReport report = data::pack_features(pack);
  progress.finish();
  return report;
}

fs::path report_path(fs::path packed) {
  packed += ".report.json";
  return packed;
}

void warn_of_left_out(std::int64_t left_out, const data::FeatureTree& tree, const fs::path& packed,
                      engine::ProgressBar& progress) {
  if (left_out <= 0) return;
  progress.warning(fmt::format("warning: {} of {} videos cannot be used and are left out; {} names them",
                               left_out, tree.videos.size(), report_path(packed).string()));
}

std::shared_ptr<const data::Dataset> pack_into_cache(const data::FeatureTree& tree,
                                                     const TreeOptions& options, const CacheName& name,
                                                     const std::vector<fs::path>& folders,
                                                     engine::ProgressBar& progress) {
  const fs::path folder = writable_folder(tree.root, folders, progress);
  const fs::path packed = folder / name.file;
  engine::remove_stale_temporaries(report_path(packed));
  const data::PackReport report =
      pack_tree(tree, options, packed, progress, [&](const data::PackReport& whole) {
        engine::write_file_atomically(report_path(packed), data::report_json(whole) + "\n");
      });
  std::string text = data::report_text(report);
  if (text.ends_with('\n')) text.pop_back();
  progress.message(text);
  progress.message("packed into " + packed.string());
  warn_of_left_out(std::ssize(report.bad), tree, packed, progress);
  remove_outdated(folder, name);
  return std::make_shared<data::Dataset>(packed);
}

/// A private temporary folder, removed by the destructor.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::error_code error;
    const fs::path parent = fs::temp_directory_path(error);
    std::string name = (parent / "voca-engine-XXXXXX").string();
    if (error || ::mkdtemp(name.data()) == nullptr) {
      throw IoError("TMPDIR {}: cannot make a temporary folder: {}", parent.string(),
                    error ? error.message() : std::strerror(errno));
    }
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// Packs a single video into a temporary folder, so that nothing is left beside the video. The open file
/// remains readable after its removal.
std::shared_ptr<const data::Dataset> pack_one_video(const data::FeatureTree& tree, const TreeOptions& options,
                                                    engine::ProgressBar& progress) {
  const TemporaryFolder folder;
  const fs::path packed = folder.path() / "video.h5";
  pack_tree(tree, options, packed, progress);
  return std::make_shared<data::Dataset>(packed);
}

/// Throws UsageError if the given options differ from the splits that the tree defines. A tree of class
/// folders defines none: it gets the requested splits.
void check_given(const TreeOptions& options, const data::FeatureTree& tree, const Splits& splits) {
  if (tree.form == data::TreeForm::kClassFolders) return;
  check_given(
      options, splits,
      fmt::format("{} {}, with", tree.root.string(),
                  tree.form == data::TreeForm::kSplitFolders ? "has its splits as folders"
                                                             : "is a folder of videos without splits"),
      "");
}

std::shared_ptr<const data::Dataset> open_tree(const data::FeatureTree& tree, const TreeOptions& options,
                                               engine::ProgressBar& progress) {
  if (tree.is_one_video()) {
    check_given(options, tree, splits_of(tree));
    return pack_one_video(tree, options, progress);
  }
  const CacheName name = cache_name(tree, options);
  const std::vector<fs::path> folders = cache_folders(tree.root);
  const auto cached = std::ranges::find_if(folders, [&](const fs::path& folder) {
    std::error_code error;
    return fs::exists(folder / name.file, error);
  });
  if (cached == folders.end()) {
    check_given(options, tree, splits_of(tree));
    return pack_into_cache(tree, options, name, folders, progress);
  }
  std::shared_ptr<const data::Dataset> dataset;
  try {
    dataset = std::make_shared<const data::Dataset>(*cached / name.file);
  } catch (const engine::DataError& error) {
    progress.warning(fmt::format("warning: {}; the features are packed again", error.what()));
    return pack_into_cache(tree, options, name, {*cached}, progress);
  }
  check_given(options, tree, splits_of(*dataset));
  warn_of_left_out(std::ssize(tree.videos) - dataset->size(), tree, dataset->path(), progress);
  return dataset;
}

}  // namespace

void check_readable(const char* option, const fs::path& path) {
  if (::access(path.c_str(), R_OK) == 0) return;
  throw IoError("{} {}: {}", option, path.string(),
                errno == ENOENT ? "no such file or folder" : std::strerror(errno));
}

std::shared_ptr<const data::Dataset> open_features(const fs::path& features_root, const TreeOptions& options,
                                                   engine::ProgressBar& progress) {
  check_readable("--features_root", features_root);
  if (!fs::is_directory(features_root)) return open_packed(features_root, options);
  const data::FeatureTree tree = data::scan_feature_tree(features_root);
  if (options.labels_needed && tree.form == data::TreeForm::kUnlabelled) refuse_without_labels(features_root);
  return open_tree(tree, options, progress);
}

void record_split(const OptionSet& set, const TreeOptions& tree, const data::Dataset& dataset,
                  nlohmann::ordered_json& values) {
  const Splits splits = splits_of(dataset);
  const bool known = !splits.ratios.empty();
  const auto record = [&](const std::string& option, const nlohmann::ordered_json& value) {
    known ? static_cast<void>(values[option] = value) : static_cast<void>(values.erase(option));
  };
  record(set.name(tree.split_ratios), fmt::format("{}", fmt::join(splits.ratios, ",")));
  record(set.name(tree.split_seed), splits.seed);
  record(set.name(tree.group_by), splits.group_by);
}

}  // namespace voca::tools
