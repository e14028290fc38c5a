#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/packed/audit.h"
#include "data/packed/split.h"
#include "data/tree/feature_tree.h"
#include "engine/core/dtype.h"

namespace voca::data {

/// Type of the packed frames. kSource: float16 when every array of the tree is, else float32.
enum class PackType : std::uint8_t { kSource, kFp16, kFp32 };
/// "source", "fp16", "fp32"; throws UsageError naming --dtype.
[[nodiscard]] PackType parse_pack_type(std::string_view text);

/// Why a video was left out.
enum class BadVideoKind : std::uint8_t {
  kMissingStream,   ///< no visual_embeddings.npz or no audio_embeddings.npz
  kUnreadable,      ///< a loop of links, a folder or a pipe in place of a file
  kDamaged,         ///< no zip, truncated, contradicts itself
  kChecksum,        ///< CRC error of a zip entry
  kNoEmbeddings,    ///< the archive has no array "embeddings"
  kEmpty,           ///< no frames
  kShape,           ///< not two-dimensional, or an impossible size
  kType,            ///< not floating-point numbers
  kNotFinite,       ///< NaN or infinity
  kOverflow,        ///< finite, and too large for the packed type
  kWidth,           ///< another width than most videos of the tree
  kLengthMismatch,  ///< T_v and T_a further apart than kMaxLengthRatio
  kTwoLabels,       ///< in real/ and in fake/
  kFrameLabels,     ///< second form: frame_labels missing where a label is needed, or not T_v of 0 and 1
};
[[nodiscard]] std::string_view name_of(BadVideoKind kind);

/// T_v and T_a are far apart when one is more than this many times the other: beyond it the streams cannot be
/// of one clip at one frame rate (the widest honest pair is 60 against 25 frames a second, 2.4).
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
  /// Nothing: 0.6, 0.2, 0.2. These three are for a tree of class folders: another refuses them (UsageError).
  std::optional<SplitRatios> split_ratios;
  std::uint64_t split_seed = 0;
  std::string group_by = "none";  ///< "none", "identity" or an expression
  int num_workers = 0;            ///< threads; 0 and 1 pack in the calling thread
  bool strict = false;            ///< a bad video is a DataError, and no file is left
  std::string created_by = "voca-engine";
  /// Called with videos done and all, by one thread at a time.
  std::function<void(std::int64_t done, std::int64_t total)> progress;
  /// Called before each video is read, from any thread: what it throws ends the packing, and no file is left.
  std::function<void()> check_stop = {};
  /// Called with the report once the file is whole and verified, just before it takes its name: what it
  /// throws leaves what was there.
  std::function<void(const PackReport& report)> before_commit = {};
};

struct PackReport {
  std::int64_t found = 0;   ///< videos of the tree
  std::int64_t packed = 0;  ///< found = packed + bad.size()
  std::vector<BadVideo> bad;
  std::vector<RepeatedVideo> repeated;  ///< there twice, and packed once; not counted as found
  std::vector<std::string> ignored;     ///< folders of the root that are no part of the tree
  TreeForm form = TreeForm::kClassFolders;
  std::int64_t visual_dim = 0;
  std::int64_t audio_dim = 0;
  engine::DType dtype = engine::DType::kF32;
  bool frame_labels = false;  ///< whether /frame_labels was written: when every packed video has them
  std::int64_t without_frame_labels = 0;  ///< packed videos that have none that can be used
  /// Videos per split and label: real, fake, unknown.
  std::array<std::array<std::int64_t, 3>, kSplits> counts{};
  SplitRatios split_ratios{};      ///< as they are stored
  std::int64_t largest_group = 0;  ///< videos that --group_by keeps together
  std::int64_t bytes_read = 0;     ///< of the .npz files packed
  std::int64_t bytes_written = 0;  ///< size of the packed file
  std::string content_hash;
  std::string split_hash;
  DatasetAudit audit;

  [[nodiscard]] std::map<BadVideoKind, std::int64_t> bad_counts() const;
};

/// Packs a feature tree into one HDF5 file (docs/data.md). The file appears whole and verified, or not at
/// all; its bytes depend on the tree and the options, not on num_workers or the time. Memory: about twice the
/// largest video per thread. Throws UsageError, DataError (strict; or no video is left) and IoError, also
/// when the system fails to read a video: such a failure passes, and the video would stay left out.
PackReport pack_features(const PackOptions& options);

/// What of the packed file will not do for training or measuring, a line each: splits that are empty or of
/// one class, a group that holds most videos, videos that were there twice, folders that were passed over.
[[nodiscard]] std::vector<std::string> warnings(const PackReport& report);
/// The report for a person: counts, every video left out, audits.
[[nodiscard]] std::string report_text(const PackReport& report);
/// The report as one JSON object.
[[nodiscard]] std::string report_json(const PackReport& report);

}  // namespace voca::data
