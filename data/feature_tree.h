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
};

/// One <video> folder.
struct VideoFolder {
  std::string id;                ///< "real/id00012_clip3": path below the root
  std::filesystem::path folder;  ///< of visual_embeddings.npz and audio_embeddings.npz
  int label = kUnknownLabel;     ///< by its folder; kUnknownLabel in the second form
  Split split = Split::kTrain;   ///< by its folder; of no meaning in the first form
  std::string fault;             ///< why it cannot even be looked into; empty: it can
};

[[nodiscard]] std::filesystem::path stream_file(const VideoFolder& video, Stream stream);

struct FeatureTree {
  std::filesystem::path root;
  TreeForm form = TreeForm::kClassFolders;
  std::vector<VideoFolder> videos;  ///< sorted by id, bytewise
};

/// Lists a tree; opens none of its files. Every folder (or link to one) in a class or split folder is a
/// video; files and names that begin with a dot are passed over; deeper folders are not searched, so no loop
/// of links can catch it. Throws DataError when the root is no folder, has the folders of neither form or of
/// both, or holds no video; IoError when it cannot be listed.
[[nodiscard]] FeatureTree scan_feature_tree(const std::filesystem::path& root);

/// SHA-256 over ids, sizes and modification times of the tree's files: the same while nobody touched it. For
/// a cache that wants to know whether to pack again.
[[nodiscard]] std::string fingerprint(const FeatureTree& tree);

}  // namespace voca::data
