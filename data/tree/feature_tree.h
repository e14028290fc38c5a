#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/names.h"

namespace voca::data {

using engine::name_of;

/// Split of a sample. The values are those of the packed file.
enum class Split : std::uint8_t { kTrain = 0, kVal = 1, kTest = 2 };
inline constexpr int kSplits = 3;
inline constexpr std::array<Split, kSplits> kAllSplits{Split::kTrain, Split::kVal, Split::kTest};
constexpr auto names_of(Split /*tag*/) {
  return std::to_array<engine::Named<Split>>(
      {{"train", Split::kTrain}, {"val", Split::kVal}, {"test", Split::kTest}, {"dev", Split::kVal}});
}

/// The two streams of a sample.
enum class Stream : std::uint8_t { kVisual = 0, kAudio = 1 };
inline constexpr std::array<Stream, 2> kStreams{Stream::kVisual, Stream::kAudio};
[[nodiscard]] constexpr std::string_view name_of(Stream stream) {
  return stream == Stream::kVisual ? "visual" : "audio";
}

/// A value per stream.
template <typename T>
struct PerStream : std::array<T, 2> {
  using std::array<T, 2>::operator[];
  [[nodiscard]] T& operator[](Stream stream) { return (*this)[static_cast<std::size_t>(stream)]; }
  [[nodiscard]] const T& operator[](Stream stream) const { return (*this)[static_cast<std::size_t>(stream)]; }
};

/// Label in a packed file of a sample whose class is unknown.
inline constexpr int kUnknownLabel = 255;
inline constexpr int kReal = 1;
inline constexpr int kFake = 0;

enum class TreeForm : std::uint8_t {
  kClassFolders,  ///< <root>/{real,fake}/<video>/: the folder is the label, splits are drawn
  kSplitFolders,  ///< <root>/{train,dev,test}/<video>/: the folder is the split, frame_labels the label
  kUnlabelled,    ///< <root>/<video>/, or <root> is itself one video: no labels, all test
};

/// One <video> folder.
struct VideoFolder {
  std::string id;                ///< "real/id00012_clip3"; the folder's name alone in kUnlabelled
  std::filesystem::path folder;  ///< contains visual_embeddings.npz and audio_embeddings.npz
  int label = kUnknownLabel;     ///< from its folder; kUnknownLabel in the other forms
  Split split = Split::kTrain;   ///< from its folder; unused in the first form
  std::string fault;             ///< why it cannot be read; empty if it can
  bool is_link = false;          ///< `folder` is a symbolic link
  std::string other_label;       ///< id of the same video in the other class's folder; empty if there is none
};

[[nodiscard]] std::filesystem::path stream_file(const VideoFolder& video, Stream stream);

/// A video that occurs twice in a tree: in two splits, or through a link. It is used once.
struct RepeatedVideo {
  std::string id;                    ///< skipped
  std::string kept;                  ///< used
  Split kept_split = Split::kTrain;  ///< split of `kept`, in the second form
  bool is_copy = false;              ///< same name and bytes; otherwise the same files, through links
};

struct FeatureTree {
  std::filesystem::path root;
  TreeForm form = TreeForm::kClassFolders;
  std::vector<VideoFolder> videos;      ///< sorted by id, bytewise
  std::vector<RepeatedVideo> repeated;  ///< sorted by id; not among the videos
  std::vector<std::string> ignored;  ///< other folders of the root ("validated/"), and files in place of one

  /// Whether the root is the folder of a single video.
  [[nodiscard]] bool is_one_video() const { return videos.size() == 1 && videos.front().folder == root; }
};

/// Lists a tree. Opens files only to compare videos of the same name in two splits. Every folder (or link to
/// one) in a class or split folder is a video. Files, names that begin with a dot and what programs leave
/// behind (__MACOSX) are ignored. Deeper folders are not searched, so link loops are harmless. Class and
/// split folders match in any letter case; dev/, val/, valid/, validation/ and dev_temp/ are val. A video in
/// two splits (same files, or same name and bytes) is kept in the later of train, val and test. Throws
/// DataError when the root is not a folder, has the folders of two forms, or holds no video; IoError when the
/// root is missing or any part of it cannot be accessed, since an unreadable class must not count as absent.
[[nodiscard]] FeatureTree scan_feature_tree(const std::filesystem::path& root);

/// SHA-256 over ids, sizes and modification times of the tree's files; unchanged as long as the files are. A
/// cache uses it to decide whether to pack again. Throws IoError when a file cannot be accessed.
[[nodiscard]] std::string fingerprint(const FeatureTree& tree);

}  // namespace voca::data
