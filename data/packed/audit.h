#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/packed/split.h"

namespace voca::data {

/// AUC above which a feature that is not evidence of forgery triggers a leak warning.
inline constexpr double kLeakThreshold = 0.7;
/// Number of leading frames whose mean energy is checked for a leak.
inline constexpr std::int64_t kLeadingFrames = 5;

/// How well a single number separates real from fake.
struct LeakAudit {
  std::string what;           ///< "visual length", "audio energy of the first 5 frames", …
  std::optional<double> auc;  ///< Mann–Whitney, real positive, ties ½; empty with one class only
  /// Whether the separation exceeds kLeakThreshold in either direction.
  [[nodiscard]] bool leaks() const { return auc && (*auc > kLeakThreshold || *auc < 1.0 - kLeakThreshold); }
};

struct IdentityAudit {
  std::int64_t identities = 0;        ///< distinct identities found in the names
  std::int64_t videos_without = 0;    ///< videos whose name contains none
  std::int64_t crossing = 0;          ///< identities with videos in more than one split
  std::int64_t crossing_videos = 0;   ///< val and test videos whose identity also occurs in train
  std::vector<std::string> examples;  ///< up to five crossing identities
};

/// Videos that are copies of each other in different splits.
struct CopyAudit {
  std::int64_t crossing_videos = 0;   ///< val and test videos with the frames of a train video, bit for bit
  std::vector<std::string> examples;  ///< up to five, "test/a and train/b"
};

struct DatasetAudit {
  IdentityAudit identities;
  CopyAudit copies;
  std::vector<LeakAudit> leaks;
};

/// Input of the audits, one entry per video.
struct AuditInput {
  std::span<const std::string> ids;
  std::span<const std::uint8_t> labels;  ///< 1 real, 0 fake; other labels are excluded from the leak audits
  std::span<const Split> splits;
  PerStream<std::span<const std::int64_t>> frames;
  PerStream<std::span<const double>> energy;  ///< mean square of the first kLeadingFrames frames
  std::span<const std::uint32_t> checksums;   ///< checksums of the frames
};

/// `splits` has one entry per id.
[[nodiscard]] IdentityAudit audit_identities(std::span<const std::string> ids, std::span<const Split> splits,
                                             const IdentityFinder& finder);
[[nodiscard]] DatasetAudit audit(const AuditInput& input, const IdentityFinder& finder);

/// AUC of `scores` for label 1 against 0, ties ½; empty when a class has no samples. O(n log n).
[[nodiscard]] std::optional<double> score_auc(std::span<const double> scores,
                                              std::span<const std::uint8_t> labels);

/// The audits as text, one line each; warnings begin with "warning: ".
[[nodiscard]] std::vector<std::string> audit_lines(const DatasetAudit& audit);

}  // namespace voca::data
