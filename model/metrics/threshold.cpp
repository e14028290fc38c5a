#include "model/metrics/threshold.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/text.h"

namespace voca::model {
namespace {

struct RuleName {
  ThresholdBy by;
  std::string_view name;
};
constexpr std::array<RuleName, 5> kRuleNames{{{ThresholdBy::kBalancedAcc, "balanced_acc"},
                                              {ThresholdBy::kAcc, "acc"},
                                              {ThresholdBy::kF1Real, "f1_real"},
                                              {ThresholdBy::kF1Fake, "f1_fake"},
                                              {ThresholdBy::kEer, "eer"}}};
constexpr std::string_view kFprPrefix = "fpr=";

double ratio(std::int64_t part, std::int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

/// Quality of the cut that classifies scores of `point` and above as real; larger is better. Equally good
/// cuts have equal values: counts are exact, and a ratio of counts is rounded once.
double goodness(const RocCurve& curve, const RocPoint& point, const ThresholdRule& rule) {
  const std::int64_t real_as_fake = curve.n_real - point.tp;
  const std::int64_t fake_as_fake = curve.n_fake - point.fp;
  const std::int64_t wrong = point.fp + real_as_fake;
  switch (rule.by) {
    case ThresholdBy::kBalancedAcc:
      return static_cast<double>(point.tp * curve.n_fake + fake_as_fake * curve.n_real);
    case ThresholdBy::kAcc:
      return static_cast<double>(point.tp + fake_as_fake);
    case ThresholdBy::kF1Real:
      return ratio(2 * point.tp, 2 * point.tp + wrong);
    case ThresholdBy::kF1Fake:
      return ratio(2 * fake_as_fake, 2 * fake_as_fake + wrong);
    case ThresholdBy::kEer:
      return -static_cast<double>(std::abs(point.fp * curve.n_real - real_as_fake * curve.n_fake));
    case ThresholdBy::kFpr:
      // Ties in TPR take the lower FPR.
      if (ratio(point.fp, curve.n_fake) > rule.fpr) return -1;
      return static_cast<double>(point.tp * (curve.n_fake + 1) + fake_as_fake);
  }
  throw engine::InternalError("no such ThresholdBy: {}", static_cast<int>(rule.by));
}

double midpoint_above(double below, double above) {
  const double middle = below + (above - below) / 2.0;
  // Adjacent doubles have no midpoint; `above` still separates them.
  return middle > below ? middle : above;
}

/// A threshold that point `i`'s score reaches and point `i` + 1's does not.
double cut_below(const RocCurve& curve, std::size_t i) {
  const bool last = i + 1 == curve.points.size();
  const double above = i == 0 ? 1.0 : curve.points[i].threshold;
  const double below = last ? 0.0 : curve.points[i + 1].threshold;
  // Scores of exactly 0 or 1 have no neighbour beyond.
  if (i == 0 && below == 1.0) return kMaxThreshold;
  if (last && above == 0.0) return 0.0;
  return midpoint_above(below, above);
}

}  // namespace

std::optional<ThresholdRule> ThresholdRule::parse(std::string_view text) {
  for (const RuleName& entry : kRuleNames)
    if (entry.name == text) return ThresholdRule{.by = entry.by};
  if (text.starts_with(kFprPrefix)) {
    const auto fpr = engine::number_in<double>(text.substr(kFprPrefix.size()));
    if (fpr && *fpr > 0 && *fpr < 1) return ThresholdRule{.by = ThresholdBy::kFpr, .fpr = *fpr};
  }
  return std::nullopt;
}

std::string ThresholdRule::text() const {
  for (const RuleName& entry : kRuleNames)
    if (entry.by == by) return std::string(entry.name);
  return fmt::format("{}{}", kFprPrefix, fpr);
}

std::optional<double> fit_threshold(const RocCurve& curve, const ThresholdRule& rule) {
  if (curve.n_real == 0 || curve.n_fake == 0) return std::nullopt;
  std::optional<std::pair<double, double>> best;  // goodness, threshold
  for (std::size_t i = 0; i < curve.points.size(); ++i) {
    const double good = goodness(curve, curve.points[i], rule);
    const double cut = cut_below(curve, i);
    const bool better = !best || good > best->first ||
                        (good == best->first && std::abs(cut - 0.5) < std::abs(best->second - 0.5));
    if (better) best = {good, cut};
  }
  return best->second;
}

}  // namespace voca::model
