#include "data/tree/feature_tree.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/file_kind.h"
#include "engine/base/file_reader.h"
#include "engine/base/path_status.h"

namespace voca::data {
namespace {

namespace fs = std::filesystem;

struct KnownFolder {
  std::string_view name;
  TreeForm form;
  int label;
  Split split;
};
constexpr std::array<KnownFolder, 9> kKnown{{
    {"fake", TreeForm::kClassFolders, kFake, Split::kTrain},
    {"real", TreeForm::kClassFolders, kReal, Split::kTrain},
    {"dev", TreeForm::kSplitFolders, kUnknownLabel, Split::kVal},
    {"val", TreeForm::kSplitFolders, kUnknownLabel, Split::kVal},
    {"valid", TreeForm::kSplitFolders, kUnknownLabel, Split::kVal},
    {"validation", TreeForm::kSplitFolders, kUnknownLabel, Split::kVal},
    // A validation split made of links into train/.
    {"dev_temp", TreeForm::kSplitFolders, kUnknownLabel, Split::kVal},
    {"test", TreeForm::kSplitFolders, kUnknownLabel, Split::kTest},
    {"train", TreeForm::kSplitFolders, kUnknownLabel, Split::kTrain},
}};
constexpr std::string_view kExpected =
    "a feature tree has folders real/ and fake/, or train/, dev/ and test/, with a folder for each video in "
    "them";
constexpr std::size_t kNamed = 5;  // names of a folder's contents listed in a message

/// A folder of the root that is a class or a split.
struct PresentFolder {
  std::string name;  ///< name on disk; may differ from KnownFolder::name in letter case
  KnownFolder known;
};

/// Status of a path's target, or with ::lstat of a link itself; empty if there is none: dangling links and
/// link loops may be part of a tree. Throws IoError for other errors, since an incomplete listing must not
/// pass as a tree.
std::optional<struct stat> look(const fs::path& path, int (*stat)(const char*, struct stat*) = ::stat) {
  struct stat status {};
  if (engine::uninterrupted([&] { return stat(path.c_str(), &status); }) == 0) return status;
  if (engine::says_absent(errno) || errno == ELOOP) return std::nullopt;
  throw engine::IoError("{}: cannot be looked at: {}", path.string(), std::strerror(errno));
}

bool is_folder(const fs::path& path) {
  const std::optional<struct stat> status = look(path);
  return status && S_ISDIR(status->st_mode);
}

/// Names that programs leave in folders; packed caches lie beside the folders of their tree.
bool is_litter(std::string_view name) {
  return name.starts_with('.') || name == "__MACOSX" || name == "@eaDir" || name.ends_with(".voca_cache");
}

/// Names in a folder, without litter, sorted bytewise.
std::vector<std::string> names_in(const fs::path& folder) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (!is_litter(name)) names.push_back(std::move(name));
  }
  if (error) throw engine::IoError("{}: cannot list the folder: {}", folder.string(), error.message());
  std::ranges::sort(names);
  return names;
}

std::string stream_name(Stream stream) {
  return fmt::format("{}_embeddings.npz", name_of(stream));
}

/// Whether a folder is a video's: one stream suffices, and the other is then reported missing.
bool holds_a_stream(const fs::path& folder) {
  return std::ranges::any_of(
      kStreams, [&](Stream stream) { return look(folder / stream_name(stream), ::lstat).has_value(); });
}

std::optional<KnownFolder> known_by(std::string_view name) {
  std::string lower(name);
  std::ranges::transform(lower, lower.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const KnownFolder& known : kKnown)
    if (lower == known.name) return known;
  return std::nullopt;
}

/// Class and split folders of a root. A video may be called "test": a folder that contains a stream is a
/// video.
std::vector<PresentFolder> known_folders(const fs::path& root, const std::vector<std::string>& names) {
  std::vector<PresentFolder> present;
  for (const std::string& name : names) {
    const std::optional<KnownFolder> known = known_by(name);
    if (!known) continue;
    // A class behind a link to an unmounted disk must not count as absent.
    if (!look(root / name)) throw engine::IoError("{}: is a link that leads nowhere", (root / name).string());
    if (is_folder(root / name) && !holds_a_stream(root / name)) present.push_back({name, *known});
  }
  return present;
}

bool has_videos(const fs::path& root, const std::vector<std::string>& names) {
  return std::ranges::any_of(names, [&](const std::string& name) { return holds_a_stream(root / name); });
}

/// First few names in a folder, for messages: "a/, b/, list.txt".
std::string found_among(const fs::path& root, const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i == kNamed) return text + ", …";
    const bool folder = is_folder(root / names[i]);
    text += fmt::format("{}{}{}", i == 0 ? "" : ", ", names[i],
                        folder               ? "/"
                        : known_by(names[i]) ? " (not a folder)"
                                             : "");
  }
  return text.empty() ? "nothing" : text;
}

/// Throws for a root of unknown form, naming its contents and what might have been meant.
[[noreturn]] void refuse_other_root(const fs::path& root, const std::vector<std::string>& names) {
  const std::string found = found_among(root, names);
  for (const std::string& name : names) {
    if (name.find('\\') != std::string::npos && !is_folder(root / name)) {
      throw engine::DataError(
          "{}: is not a feature tree (found a file named '{}'); its paths were written on Windows: unpack "
          "the archive again with unzip or 7z, which make folders of them",
          root.string(), name);
    }
  }
  for (const std::string& name : names) {
    const fs::path below = root / name;
    if (!is_folder(below)) continue;
    std::error_code error;
    fs::directory_iterator listed(below, error);
    if (error) continue;
    const std::vector<std::string> inside = names_in(below);
    if (!known_folders(below, inside).empty() || has_videos(below, inside)) {
      throw engine::DataError("{}: is not a feature tree (found {}), but {} is one; name that folder",
                              root.string(), found, below.string());
    }
  }
  throw engine::DataError("{}: is not a feature tree (found {}); {}", root.string(), found, kExpected);
}

/// A video, or empty for a plain file among the videos.
std::optional<VideoFolder> look_at(const fs::path& folder, const KnownFolder& known, std::string id) {
  VideoFolder video;
  video.id = std::move(id);
  video.folder = folder;
  video.label = known.label;
  video.split = known.split;
  const std::optional<struct stat> status = look(folder);
  const int error_number = errno;
  std::error_code error;
  video.is_link = fs::is_symlink(folder, error);
  if (!status) {
    video.fault =
        fmt::format("{}: cannot be looked into: {}", video.folder.string(), std::strerror(error_number));
    return video;
  }
  if (!S_ISDIR(status->st_mode)) return std::nullopt;
  return video;
}

void refuse_unclear_folders(const fs::path& root, const std::vector<PresentFolder>& present) {
  std::map<std::string_view, std::string> by_name;
  for (const PresentFolder& folder : present) {
    if (folder.known.form != present.front().known.form) {
      throw engine::DataError("{}: has {}/ and {}/, so it is unclear which folders are meant; {}",
                              root.string(), present.front().name, folder.name, kExpected);
    }
    const auto [other, first] = by_name.emplace(folder.known.name, folder.name);
    if (!first) {
      throw engine::DataError(
          "{}: has {}/ and {}/, which mean the same; move the videos of one into the other", root.string(),
          other->second, folder.name);
    }
  }
}

/// Device and inode numbers of both files: equal ones mean the same video, however it is linked.
using FileIdentity = std::array<std::uint64_t, 4>;
std::optional<FileIdentity> files_of(const VideoFolder& video) {
  FileIdentity identity{};
  for (const Stream stream : kStreams) {
    const std::optional<struct stat> status = look(stream_file(video, stream));
    if (!status) return std::nullopt;
    const auto s = static_cast<std::size_t>(stream);
    identity[2 * s] = status->st_dev;
    identity[2 * s + 1] = status->st_ino;
  }
  return identity;
}

/// Whether both files exist and have equal bytes.
bool same_bytes(const fs::path& a, const fs::path& b) {
  const auto size_of = [](const fs::path& path) -> std::int64_t {
    const std::optional<struct stat> status = look(path);
    return status && S_ISREG(status->st_mode) ? status->st_size : -1;
  };
  if (size_of(a) < 0 || size_of(a) != size_of(b)) return false;
  const engine::FileReader first(a);
  const engine::FileReader second(b);
  constexpr std::uint64_t kChunk = std::uint64_t{1} << 16;
  for (std::uint64_t at = 0; at < first.size(); at += kChunk) {
    const std::uint64_t count = std::min(kChunk, first.size() - at);
    if (first.read(at, count) != second.read(at, count)) return false;
  }
  return true;
}

bool same_content(const VideoFolder& a, const VideoFolder& b) {
  return std::ranges::all_of(
      kStreams, [&](Stream stream) { return same_bytes(stream_file(a, stream), stream_file(b, stream)); });
}

std::string_view name_in_folder(const VideoFolder& video) {
  return std::string_view(video.id).substr(video.id.find('/') + 1);
}

/// Keeps each video of the tree once. A video in two splits is kept in the later one, so that no evaluation
/// video is trained on. A video in both classes has no clear label: both entries are marked as faulty.
void keep_once(FeatureTree& tree) {
  const bool splits = tree.form == TreeForm::kSplitFolders;
  std::ranges::sort(tree.videos, [](const VideoFolder& a, const VideoFolder& b) {
    if (a.split != b.split) return a.split > b.split;
    return a.is_link != b.is_link ? b.is_link : a.id < b.id;
  });
  std::map<FileIdentity, std::size_t> by_files;
  std::unordered_map<std::string, std::size_t> by_name;
  std::vector<VideoFolder> kept;
  for (VideoFolder& video : tree.videos) {
    const std::optional<FileIdentity> files = files_of(video);
    const auto same_files = files ? by_files.find(*files) : by_files.end();
    // An equal name alone is not enough: many datasets number each split from 0.
    auto copy = splits ? by_name.find(std::string(name_in_folder(video))) : by_name.end();
    if (copy != by_name.end() && !same_content(video, kept[copy->second])) copy = by_name.end();
    if (same_files != by_files.end() && kept[same_files->second].label != video.label) {
      VideoFolder& other = kept[same_files->second];
      other.other_label = video.id;
      video.other_label = other.id;
    } else if (same_files != by_files.end() || copy != by_name.end()) {
      const bool is_copy = same_files == by_files.end();
      const VideoFolder& other = kept[is_copy ? copy->second : same_files->second];
      tree.repeated.push_back({video.id, other.id, other.split, is_copy});
      continue;
    }
    // Unusable videos never replace others.
    if (files) by_files.try_emplace(*files, kept.size());
    if (files && splits) by_name.try_emplace(std::string(name_in_folder(video)), kept.size());
    kept.push_back(std::move(video));
  }
  tree.videos = std::move(kept);
}

/// Videos of the class or split folders.
FeatureTree scan_known(const fs::path& root, const std::vector<std::string>& names,
                       const std::vector<PresentFolder>& present) {
  refuse_unclear_folders(root, present);
  FeatureTree tree;
  tree.root = root;
  tree.form = present.front().known.form;
  for (const PresentFolder& folder : present) {
    const fs::path parent = root / folder.name;
    for (const std::string& name : names_in(parent)) {
      if (const auto within = known_by(name);
          within && within->form != tree.form && is_folder(parent / name)) {
        throw engine::DataError(
            "{}: holds {}/, where the folders of videos were expected: splits and classes both as folders "
            "are not read; {}",
            parent.string(), name, kExpected);
      }
      auto video = look_at(parent / name, folder.known, fmt::format("{}/{}", folder.known.name, name));
      if (video) tree.videos.push_back(*std::move(video));
    }
  }
  for (const std::string& name : names) {
    if (std::ranges::find(present, name, &PresentFolder::name) != present.end()) continue;
    if (is_folder(root / name)) {
      tree.ignored.push_back(name + "/");
    } else if (known_by(name)) {
      tree.ignored.push_back(name + " (not a folder)");
    }
  }
  if (tree.videos.empty()) {
    throw engine::DataError("{}: holds no video (found {} in {}/); {}", root.string(),
                            found_among(root / present.front().name, names_in(root / present.front().name)),
                            present.front().name, kExpected);
  }
  keep_once(tree);
  return tree;
}

/// Videos of an unlabelled root, which may itself be one.
FeatureTree scan_unlabelled(const fs::path& root, const std::vector<std::string>& names) {
  constexpr KnownFolder kNothingKnown{"", TreeForm::kUnlabelled, kUnknownLabel, Split::kTest};
  FeatureTree tree;
  tree.root = root;
  tree.form = TreeForm::kUnlabelled;
  if (holds_a_stream(root)) {
    tree.videos.push_back(*look_at(root, kNothingKnown, fs::canonical(root).filename().string()));
    return tree;
  }
  for (const std::string& name : names)
    if (auto video = look_at(root / name, kNothingKnown, name)) tree.videos.push_back(*std::move(video));
  return tree;
}

}  // namespace

fs::path stream_file(const VideoFolder& video, Stream stream) {
  return video.folder / stream_name(stream);
}

FeatureTree scan_feature_tree(const fs::path& root) {
  const engine::PathKind root_kind = engine::path_kind(root);
  if (root_kind == engine::PathKind::kAbsent)
    throw engine::IoError("{}: no such folder; {}", root.string(), kExpected);
  if (root_kind != engine::PathKind::kFolder) {
    const std::string_view kind = engine::describe(engine::file_kind(root));
    throw engine::DataError("{}: is {}, not a folder; {}", root.string(), kind.empty() ? "a file" : kind,
                            kExpected);
  }
  const std::vector<std::string> names = names_in(root);
  const std::vector<PresentFolder> present = known_folders(root, names);
  FeatureTree tree;
  if (!present.empty()) {
    tree = scan_known(root, names, present);
  } else if (holds_a_stream(root) || has_videos(root, names)) {
    tree = scan_unlabelled(root, names);
  } else {
    refuse_other_root(root, names);
  }
  std::ranges::sort(tree.videos, {}, &VideoFolder::id);
  std::ranges::sort(tree.repeated, {}, &RepeatedVideo::id);
  return tree;
}

std::string fingerprint(const FeatureTree& tree) {
  engine::Sha256 digest;
  for (const VideoFolder& video : tree.videos) {
    for (const Stream stream : kStreams) {
      const std::optional<struct stat> status = look(stream_file(video, stream));
      digest.update(status ? fmt::format("{}\n{} {}.{}\n", video.id, status->st_size, status->st_mtim.tv_sec,
                                         status->st_mtim.tv_nsec)
                           : fmt::format("{}\nnone\n", video.id));
    }
  }
  return digest.finish();
}

}  // namespace voca::data
