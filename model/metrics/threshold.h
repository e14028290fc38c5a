#pragma once

// The decision threshold stored in a checkpoint, fitted on the validation split.

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "model/metrics/metrics.h"

namespace voca::model {

/// Criterion that a fitted threshold optimises.
enum class ThresholdBy : std::uint8_t {
  kBalancedAcc,  ///< mean recall of both classes, independent of class balance
  kAcc,          ///< fraction classified correctly; with few reals, finding none can be optimal
  kF1Real,
  kF1Fake,
  kEer,  ///< smallest |FPR − FNR|
  kFpr,  ///< highest TPR with FPR ≤ `fpr`
};

struct ThresholdRule {
  ThresholdBy by = ThresholdBy::kBalancedAcc;
  double fpr = 0;  ///< maximum fraction of fakes classified as real; for kFpr

  static constexpr std::string_view kForm =
      "balanced_acc, acc, f1_real, f1_fake, eer, or fpr=P with P above 0 and below 1, such as fpr=0.01";
  [[nodiscard]] static std::optional<ThresholdRule> parse(std::string_view text);
  [[nodiscard]] std::string text() const;
};

/// Largest threshold that can be fitted: the number after 1, which no score reaches.
inline constexpr double kMaxThreshold = 1.0 + std::numeric_limits<double>::epsilon();

/// The threshold that is optimal by `rule`, from 0 to kMaxThreshold; fit it only on the validation split.
/// Candidates are midway between neighbouring distinct scores, with 0 and 1 as outermost neighbours. Ties
/// take the candidate nearest to 0.5, then the higher one. Undefined if only one class is present.
[[nodiscard]] std::optional<double> fit_threshold(const RocCurve& curve, const ThresholdRule& rule);

}  // namespace voca::model
