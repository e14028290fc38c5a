#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace voca::data {

/// Where a sample belongs. The values are those of the packed file.
enum class Split : std::uint8_t { kTrain = 0, kVal = 1, kTest = 2 };
inline constexpr int kSplits = 3;
inline constexpr std::array<Split, kSplits> kAllSplits{Split::kTrain, Split::kVal, Split::kTest};
/// "train", "val", "test".
[[nodiscard]] std::string_view name_of(Split split);
/// The inverse; "dev" is val. Throws UsageError.
[[nodiscard]] Split parse_split(std::string_view text);

/// The two streams of a sample.
enum class Stream : std::uint8_t { kVisual = 0, kAudio = 1 };
inline constexpr std::array<Stream, 2> kStreams{Stream::kVisual, Stream::kAudio};
[[nodiscard]] constexpr std::string_view name_of(Stream stream) {
  return stream == Stream::kVisual ? "visual" : "audio";
}

/// Label of a sample whose class is not known, in a packed file.
inline constexpr int kUnknownLabel = 255;
inline constexpr int kReal = 1;
inline constexpr int kFake = 0;

enum class TreeForm : std::uint8_t {
  kClassFolders,  ///< <root>/{real,fake}/<video>/: the folder is the label, the splits are drawn
  kSplitFolders,  ///< <root>/{train,dev,test}/<video>/: the folder is the split, frame_labels the label
  kUnlabelled,    ///< <root>/<video>/, or <root> is one video itself: no labels, all of it test
};

/// One <video> folder.
struct VideoFolder {
  std::string id;                ///< "real/id00012_clip3"; without labels the folder's name alone
  std::filesystem::path folder;  ///< of visual_embeddings.npz and audio_embeddings.npz
  int label = kUnknownLabel;     ///< by its folder; kUnknownLabel in the other forms
  Split split = Split::kTrain;   ///< by its folder; of no meaning in the first form
  std::string fault;             ///< why it cannot even be looked into; empty: it can
  bool is_link = false;          ///< `folder` is a symbolic link
  std::string other_label;       ///< id of the same video in the other class's folder; empty: there is none
};

[[nodiscard]] std::filesystem::path stream_file(const VideoFolder& video, Stream stream);

/// A video that a tree holds twice: in two splits, or through a link. It is used once.
struct RepeatedVideo {
  std::string id;                    ///< left out
  std::string kept;                  ///< used
  Split kept_split = Split::kTrain;  ///< of `kept`, in the second form
  bool is_copy = false;              ///< the same name and bytes; else the same files, through links
};

struct FeatureTree {
  std::filesystem::path root;
  TreeForm form = TreeForm::kClassFolders;
  std::vector<VideoFolder> videos;      ///< sorted by id, bytewise
  std::vector<RepeatedVideo> repeated;  ///< sorted by id; not among the videos
  std::vector<std::string> ignored;  ///< other folders of the root ("validated/"), and files in place of one

  /// Whether the root is the folder of one video.
  [[nodiscard]] bool is_one_video() const { return videos.size() == 1 && videos.front().folder == root; }
};

/// Lists a tree; opens none of its files. Every folder (or link to one) in a class or split folder is a
/// video; files, names that begin with a dot and what programs leave behind (__MACOSX) are passed over;
/// deeper folders are not searched, so no loop of links can catch it. Letter case of the class and split
/// folders does not matter. dev/, val/, valid/, validation/ and dev_temp/ are val. A video in two splits, by
/// its files or by its name, stays in the later of train, val and test. Throws DataError when the root is no
/// folder, has the folders of two forms, or holds no video; IoError when it is not there, or when anything of
/// it cannot be looked at: a class that cannot be read is not one that is not there.
[[nodiscard]] FeatureTree scan_feature_tree(const std::filesystem::path& root);

/// SHA-256 over ids, sizes and modification times of the tree's files: the same while nobody touched it. For
/// a cache that wants to know whether to pack again. Throws IoError when a file cannot be looked at.
[[nodiscard]] std::string fingerprint(const FeatureTree& tree);

}  // namespace voca::data
