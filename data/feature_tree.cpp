#include "data/feature_tree.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>

#include "engine/digest.h"
#include "engine/error.h"

namespace voca::data {
namespace {

namespace fs = std::filesystem;

struct KnownFolder {
  std::string_view name;
  TreeForm form;
  int label;
  Split split;
};
constexpr std::array<KnownFolder, 6> kKnown{{
    {"fake", TreeForm::kClassFolders, kFake, Split::kTrain},
    {"real", TreeForm::kClassFolders, kReal, Split::kTrain},
    {"dev", TreeForm::kSplitFolders, kUnknownLabel, Split::kVal},
    {"val", TreeForm::kSplitFolders, kUnknownLabel, Split::kVal},
    {"test", TreeForm::kSplitFolders, kUnknownLabel, Split::kTest},
    {"train", TreeForm::kSplitFolders, kUnknownLabel, Split::kTrain},
}};
constexpr std::string_view kExpected =
    "a feature tree has folders real/ and fake/, or train/, dev/ and test/, with a folder for each video in "
    "them";

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

/// The names in a folder that do not begin with a dot, sorted bytewise.
std::vector<std::string> names_in(const fs::path& folder) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (!name.starts_with('.')) names.push_back(std::move(name));
  }
  if (error) throw engine::IoError("{}: cannot list the folder: {}", folder.string(), error.message());
  std::sort(names.begin(), names.end());
  return names;
}

/// The first few subfolders of a root, for a message.
std::string found_in(const fs::path& root) {
  std::string text;
  int count = 0;
  for (const std::string& name : names_in(root)) {
    if (!is_folder(root / name)) continue;
    if (++count > 5) return text + ", …";
    text += fmt::format("{}{}/", text.empty() ? "" : ", ", name);
  }
  return text.empty() ? "no folder" : text;
}

/// A video, or nothing for a plain file among the videos.
std::optional<VideoFolder> look_at(const fs::path& parent, const KnownFolder& known,
                                   const std::string& name) {
  VideoFolder video{fmt::format("{}/{}", known.name, name), parent / name, known.label, known.split, {}};
  struct stat status {};
  if (::stat(video.folder.c_str(), &status) != 0) {
    video.fault = fmt::format("{}: cannot be looked into: {}", video.folder.string(), std::strerror(errno));
    return video;
  }
  if (!S_ISDIR(status.st_mode)) return std::nullopt;
  return video;
}

void refuse_both_forms(const fs::path& root, const std::vector<KnownFolder>& present) {
  for (const KnownFolder& known : present) {
    if (known.form == present.front().form) continue;
    throw engine::DataError("{}: has {}/ and {}/, so it is unclear which folders are meant; {}",
                            root.string(), present.front().name, known.name, kExpected);
  }
}

}  // namespace

std::string_view name_of(Split split) {
  switch (split) {
    case Split::kTrain:
      return "train";
    case Split::kVal:
      return "val";
    case Split::kTest:
      return "test";
  }
  return "unknown";
}

Split parse_split(std::string_view text) {
  if (text == "dev") return Split::kVal;
  for (const Split split : kAllSplits) {
    if (text == name_of(split)) return split;
  }
  throw engine::UsageError("--split is '{}'; it must be train, val or test", text);
}

fs::path stream_file(const VideoFolder& video, Stream stream) {
  return video.folder / fmt::format("{}_embeddings.npz", name_of(stream));
}

FeatureTree scan_feature_tree(const fs::path& root) {
  std::error_code error;
  const fs::file_status status = fs::status(root, error);
  if (!fs::exists(status)) throw engine::DataError("{}: no such folder; {}", root.string(), kExpected);
  if (!fs::is_directory(status)) throw engine::DataError("{}: is no folder; {}", root.string(), kExpected);
  std::vector<KnownFolder> present;
  for (const KnownFolder& known : kKnown) {
    if (is_folder(root / known.name)) present.push_back(known);
  }
  if (present.empty()) {
    throw engine::DataError("{}: is no feature tree (found {}); {}", root.string(), found_in(root),
                            kExpected);
  }
  refuse_both_forms(root, present);
  FeatureTree tree{root, present.front().form, {}};
  for (const KnownFolder& known : present) {
    const fs::path parent = root / known.name;
    for (const std::string& name : names_in(parent)) {
      if (std::optional<VideoFolder> video = look_at(parent, known, name)) tree.videos.push_back(*video);
    }
  }
  if (tree.videos.empty())
    throw engine::DataError("{}: holds no video (found {}); {}", root.string(), found_in(root), kExpected);
  std::sort(tree.videos.begin(), tree.videos.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  return tree;
}

std::string fingerprint(const FeatureTree& tree) {
  engine::Sha256 digest;
  for (const VideoFolder& video : tree.videos) {
    for (const Stream stream : kStreams) {
      struct stat status {};
      const bool there = ::stat(stream_file(video, stream).c_str(), &status) == 0;
      digest.update(there ? fmt::format("{}\n{} {}.{}\n", video.id, status.st_size, status.st_mtim.tv_sec,
                                        status.st_mtim.tv_nsec)
                          : fmt::format("{}\nnone\n", video.id));
    }
  }
  return digest.finish();
}

}  // namespace voca::data
