#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/packed/split.h"

namespace voca::data {

/// Warn when something that is no evidence tells the classes apart better than this.
inline constexpr double kLeakThreshold = 0.7;
/// Frames whose mean energy is looked at for a leak.
inline constexpr std::int64_t kLeadingFrames = 5;

/// How well one number alone tells real from fake.
struct LeakAudit {
  std::string what;           ///< "visual length", "audio energy of the first 5 frames", …
  std::optional<double> auc;  ///< Mann–Whitney, real positive, ties ½; nothing with one class only
  /// Whether it separates beyond kLeakThreshold in either direction.
  [[nodiscard]] bool leaks() const { return auc && (*auc > kLeakThreshold || *auc < 1.0 - kLeakThreshold); }
};

struct IdentityAudit {
  std::int64_t identities = 0;        ///< different ones found in the names
  std::int64_t videos_without = 0;    ///< videos whose name carries none
  std::int64_t crossing = 0;          ///< identities with videos in more than one split
  std::int64_t crossing_videos = 0;   ///< val and test videos with an identity that train has too
  std::vector<std::string> examples;  ///< up to five of the crossing ones
};

/// Videos that are copies of each other, in two splits.
struct CopyAudit {
  std::int64_t crossing_videos = 0;   ///< val and test videos whose frames a train video has, bit for bit
  std::vector<std::string> examples;  ///< up to five, "test/a and train/b"
};

struct DatasetAudit {
  IdentityAudit identities;
  CopyAudit copies;
  std::vector<LeakAudit> leaks;
};

/// What the audits look at, one entry a video.
struct AuditInput {
  std::span<const std::string> ids;
  std::span<const std::uint8_t> labels;  ///< 1 real, 0 fake; others are left out of the leaks
  std::span<const Split> splits;
  std::span<const std::int64_t> visual_frames;
  std::span<const std::int64_t> audio_frames;
  std::span<const double> visual_energy;  ///< mean square of the first kLeadingFrames frames
  std::span<const double> audio_energy;
  std::span<const std::uint32_t> checksums;  ///< of the frames
};

/// `splits` is of the videos that `ids` names.
[[nodiscard]] IdentityAudit audit_identities(std::span<const std::string> ids, std::span<const Split> splits,
                                             const IdentityFinder& finder);
[[nodiscard]] DatasetAudit audit(const AuditInput& input, const IdentityFinder& finder);

/// AUC of `scores` for label 1 against 0, ties ½; nothing when a class is empty. O(n log n).
[[nodiscard]] std::optional<double> score_auc(std::span<const double> scores,
                                              std::span<const std::uint8_t> labels);

/// The audits for a person, a line each; warnings begin with "warning: ".
[[nodiscard]] std::vector<std::string> audit_lines(const DatasetAudit& audit);

}  // namespace voca::data
