#pragma once

// The decision threshold that a checkpoint carries, fitted on the validation split.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "model/metrics/metrics.h"

namespace voca::engine {

/// What a fitted threshold makes best.
enum class ThresholdBy : std::uint8_t {
  kBalancedAcc,  ///< the mean of both classes' recall, whatever the share of each
  kAcc,          ///< the share of samples that are right; with few reals it can be best to find none
  kF1Real,
  kF1Fake,
  kEer,  ///< |FPR − FNR| is smallest
  kFpr,  ///< the highest TPR with FPR at most `fpr`
};

struct ThresholdRule {
  ThresholdBy by = ThresholdBy::kBalancedAcc;
  double fpr = 0;  ///< the share of fakes that may pass for real; for kFpr
};

/// "balanced_acc", "acc", "f1_real", "f1_fake", "eer" or "fpr=0.01" (above 0, below 1); throws UsageError
/// naming --threshold_by for anything else.
[[nodiscard]] ThresholdRule parse_threshold_rule(std::string_view text);
/// The text that parse_threshold_rule() reads back.
[[nodiscard]] std::string name_of(const ThresholdRule& rule);

/// The threshold that `rule` prefers; fit it on the validation split only. Candidates lie midway between
/// neighbouring distinct scores, with 0 and 1 as neighbours of the outermost; of equally good ones the
/// nearest to 0.5 wins, then the higher. Undefined with one class only.
[[nodiscard]] std::optional<double> fit_threshold(const RocCurve& curve, const ThresholdRule& rule);

}  // namespace voca::engine
