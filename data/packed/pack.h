#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/packed/audit.h"
#include "data/packed/split.h"
#include "data/tree/feature_tree.h"
#include "engine/base/names.h"
#include "engine/core/dtype.h"

namespace voca::data {

/// Type of the packed frames. kSource: float16 if every array of the tree is float16, else float32.
enum class PackType : std::uint8_t { kSource, kFp16, kFp32 };
constexpr auto names_of(PackType /*tag*/) {
  return std::to_array<engine::Named<PackType>>(
      {{"source", PackType::kSource}, {"fp16", PackType::kFp16}, {"fp32", PackType::kFp32}});
}

/// Reason for skipping a video.
enum class BadVideoKind : std::uint8_t {
  kMissingStream,   ///< no visual_embeddings.npz or no audio_embeddings.npz
  kUnreadable,      ///< symbolic-link loop, or a folder or pipe in place of a file
  kDamaged,         ///< not a zip, truncated, or inconsistent
  kChecksum,        ///< CRC error of a zip entry
  kNoEmbeddings,    ///< the archive has no array "embeddings"
  kEmpty,           ///< no frames
  kShape,           ///< not two-dimensional, or an impossible size
  kType,            ///< not floating-point numbers
  kNotFinite,       ///< NaN or infinity
  kOverflow,        ///< finite, but too large for the packed type
  kWidth,           ///< width differs from that of most videos of the tree
  kLengthMismatch,  ///< lengths T_v and T_a differ by more than kMaxLengthRatio
  kTwoLabels,       ///< present in both real/ and fake/
  kFrameLabels,  ///< second form: frame_labels missing where a label is needed, or not T_v values of 0 and 1
};
constexpr auto names_of(BadVideoKind /*tag*/) {
  return std::to_array<engine::Named<BadVideoKind>>({
      {"stream missing", BadVideoKind::kMissingStream},
      {"unreadable", BadVideoKind::kUnreadable},
      {"damaged or truncated file", BadVideoKind::kDamaged},
      {"CRC error", BadVideoKind::kChecksum},
      {"no embeddings", BadVideoKind::kNoEmbeddings},
      {"empty array", BadVideoKind::kEmpty},
      {"wrong shape", BadVideoKind::kShape},
      {"wrong type", BadVideoKind::kType},
      {"NaN or infinity", BadVideoKind::kNotFinite},
      {"too large for the packed type", BadVideoKind::kOverflow},
      {"width differs", BadVideoKind::kWidth},
      {"lengths far apart", BadVideoKind::kLengthMismatch},
      {"real and fake", BadVideoKind::kTwoLabels},
      {"frame labels", BadVideoKind::kFrameLabels},
  });
}

/// Maximum ratio of T_v and T_a: beyond it the streams cannot come from one clip at one frame rate (the
/// widest legitimate pair is 60 against 25 frames per second, 2.4).
inline constexpr double kMaxLengthRatio = 2.5;

struct BadVideo {
  std::string id;
  BadVideoKind kind = BadVideoKind::kUnreadable;
  std::string message;  ///< one line naming the file and the reason
};

struct PackReport;

struct PackOptions {
  std::filesystem::path features_root;
  std::filesystem::path out;
  PackType dtype = PackType::kSource;
  /// Default: kUsualRatios. The next three options require a tree of class folders (else UsageError).
  std::optional<SplitRatios> split_ratios;
  std::uint64_t split_seed = 0;
  GroupBy group_by;
  int num_workers = 0;  ///< threads; 0 and 1 pack in the calling thread
  bool strict = false;  ///< a bad video throws DataError, and no file is written
  std::string created_by = "voca-engine";
  /// Called with the numbers of completed and of all videos, by one thread at a time.
  std::function<void(std::int64_t done, std::int64_t total)> progress;
  /// Called before each video is read, from any thread; if it throws, packing ends and no file is written.
  std::function<void()> check_stop = {};
  /// Called with the report once the file is complete and verified, just before it is renamed; if it throws,
  /// the previous file is kept.
  std::function<void(const PackReport& report)> before_commit = {};
};

struct PackReport {
  std::int64_t found = 0;   ///< videos in the tree
  std::int64_t packed = 0;  ///< found = packed + bad.size()
  std::vector<BadVideo> bad;
  std::vector<RepeatedVideo> repeated;  ///< present twice and packed once; not counted as found
  std::vector<std::string> ignored;     ///< folders of the root that are not part of the tree
  TreeForm form = TreeForm::kClassFolders;
  PerStream<std::int64_t> dims{};
  engine::DType dtype = engine::DType::kF32;
  bool frame_labels = false;  ///< whether /frame_labels was written: if every packed video has them
  std::int64_t without_frame_labels = 0;  ///< packed videos without usable frame labels
  /// Videos per split and label: real, fake, unknown.
  std::array<std::array<std::int64_t, 3>, kSplits> counts{};
  SplitRatios split_ratios{};      ///< as stored
  std::int64_t largest_group = 0;  ///< largest number of videos that --group_by keeps together
  std::int64_t bytes_read = 0;     ///< size of the packed .npz files
  std::int64_t bytes_written = 0;  ///< size of the packed file
  std::string content_hash;
  std::string split_hash;
  DatasetAudit audit;

  [[nodiscard]] std::map<BadVideoKind, std::int64_t> bad_counts() const;
};

/// Packs a feature tree into one HDF5 file (docs/data.md). The file appears complete and verified, or not at
/// all. Its bytes depend on the tree and the options, not on num_workers or the time. Memory: about twice the
/// largest video per thread. Throws UsageError, DataError (strict, or no video is left) and IoError. A system
/// error while reading a video also throws: it is transient, whereas a skipped video would stay skipped.
PackReport pack_features(const PackOptions& options);

/// Properties of the packed file that prevent training or evaluation, one line each: empty or one-class
/// splits, a group with most of the videos, duplicate videos, ignored folders.
[[nodiscard]] std::vector<std::string> warnings(const PackReport& report);
/// The report as text: counts, every skipped video, audits.
[[nodiscard]] std::string report_text(const PackReport& report);
/// The report as one JSON object.
[[nodiscard]] std::string report_json(const PackReport& report);

}  // namespace voca::data
