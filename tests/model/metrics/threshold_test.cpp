#include "model/metrics/threshold.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

#include "engine/base/error.h"
#include "tests/model/metrics/scores.h"

namespace voca::model {
namespace {

using test::count_from;
using test::draw;
using test::Sample;
using test::samples;
using test::thresholds_descending;
using ::testing::HasSubstr;

constexpr ThresholdRule kAcc{.by = ThresholdBy::kAcc};

double fitted(const std::vector<double>& scores, const std::vector<int>& labels,
              const ThresholdRule& rule = kAcc) {
  return fit_threshold(roc_curve(scores, labels), rule).value();
}

/// Each rule with what it makes large, straight from the counts.
struct Case {
  const char* rule;
  std::function<double(double tp, double fp, double fn, double tn)> goodness;
};
std::vector<Case> cases() {
  return {
      {"balanced_acc",
       [](double tp, double fp, double fn, double tn) { return tp / (tp + fn) + tn / (tn + fp); }},
      {"acc", [](double tp, double, double, double tn) { return tp + tn; }},
      {"f1_real", [](double tp, double fp, double fn, double) { return 2 * tp / (2 * tp + fp + fn); }},
      {"f1_fake", [](double, double fp, double fn, double tn) { return 2 * tn / (2 * tn + fp + fn); }},
      {"eer",
       [](double tp, double fp, double fn, double tn) { return -std::abs(fp / (fp + tn) - fn / (fn + tp)); }},
      {"fpr=0.2", [](double tp, double fp, double, double tn) { return fp <= 0.2 * (fp + tn) ? tp : -1; }}};
}

TEST(FitThreshold, IsTheBestByItsRuleOfAllThresholds) {
  for (const Case& c : cases()) {
    for (const Sample& sample : samples()) {
      const RocCurve curve = roc_curve(sample.scores, sample.labels);
      const auto goodness_at = [&](double threshold) {
        const RocPoint at = count_from(sample, threshold);
        return c.goodness(static_cast<double>(at.tp), static_cast<double>(at.fp),
                          static_cast<double>(curve.n_real - at.tp),
                          static_cast<double>(curve.n_fake - at.fp));
      };
      std::vector<double> tried = thresholds_descending(sample);
      tried.push_back(2.0);
      double best = -std::numeric_limits<double>::infinity();
      for (const double other : tried) best = std::max(best, goodness_at(other));
      EXPECT_NEAR(goodness_at(fit_threshold(curve, ThresholdRule::parse(c.rule).value()).value()), best,
                  1e-12)
          << c.rule;
    }
  }
}

// 2 % real: calling everything fake is 98 % right, and finds nothing.
TEST(FitThreshold, BalancedAccuracyFindsTheFewRealsThatAccuracyGivesUp) {
  const Sample sample = draw(3000, 0.02, 50, 7);
  const RocCurve curve = roc_curve(sample.scores, sample.labels);
  const Decisions by_acc = decide(curve, fit_threshold(curve, kAcc).value());
  const Decisions balanced = decide(curve, fit_threshold(curve, ThresholdRule{}).value());
  EXPECT_GE(by_acc.acc.value(), 0.98);
  EXPECT_LT(by_acc.recall_real.value(), 0.3);
  EXPECT_GT(balanced.recall_real.value(), 0.5);
  EXPECT_GT(balanced.balanced_acc.value(), by_acc.balanced_acc.value() + 0.05);
}

TEST(FitThreshold, OfEqualRatesOfFakesPassedTheLowestIsTaken) {
  // At most one of four fakes may pass: 0.7 finds both reals and passes none.
  EXPECT_DOUBLE_EQ(
      fitted({0.9, 0.8, 0.6, 0.2, 0.2, 0.2}, {1, 1, 0, 0, 0, 0}, ThresholdRule::parse("fpr=0.25").value()),
      0.7);
  EXPECT_DOUBLE_EQ(
      fitted({0.9, 0.8, 0.6, 0.4, 0.2, 0.2}, {1, 0, 1, 0, 0, 0}, ThresholdRule::parse("fpr=0.25").value()),
      0.5);
  EXPECT_DOUBLE_EQ(
      fitted({0.9, 0.8, 0.6, 0.4, 0.2, 0.2}, {1, 0, 1, 0, 0, 0}, ThresholdRule::parse("fpr=0.1").value()),
      0.85);
}

TEST(FitThreshold, LiesMidwayAndTowardAHalf) {
  EXPECT_DOUBLE_EQ(fitted({0.2, 0.4, 0.8}, {0, 0, 1}), 0.6);
  // Three of four are right at 0.15 and at 0.65.
  EXPECT_DOUBLE_EQ(fitted({0.1, 0.2, 0.5, 0.8}, {0, 1, 0, 1}), 0.65);
  EXPECT_DOUBLE_EQ(fitted({0.05, 0.1, 0.6, 0.65}, {0, 1, 0, 1}), 0.625);
}

TEST(FitThreshold, CanRefuseAndAcceptEverything) {
  const RocCurve fakes = roc_curve(std::vector{0.0, 1.0, 1.0}, std::vector{1, 0, 0});
  EXPECT_EQ(fit_threshold(fakes, kAcc), kMaxThreshold);
  EXPECT_EQ(decide(fakes, fit_threshold(fakes, kAcc).value()).fake_as_fake, 2);
  EXPECT_EQ(decide(fakes, fit_threshold(fakes, kAcc).value()).real_as_real, 0);
  const RocCurve reals = roc_curve(std::vector{0.0, 0.0, 1.0}, std::vector{1, 1, 0});
  EXPECT_EQ(decide(reals, fit_threshold(reals, kAcc).value()).real_as_real, 2);
  EXPECT_EQ(decide(reals, fit_threshold(reals, kAcc).value()).fake_as_fake, 0);
}

TEST(FitThreshold, SeparatesNeighbouringDoubles) {
  const double low = 0.5;
  const double high = std::nextafter(low, 1.0);
  const RocCurve curve = roc_curve(std::vector{low, high}, std::vector{0, 1});
  EXPECT_EQ(decide(curve, fit_threshold(curve, ThresholdRule{}).value()).acc, 1.0);
}

TEST(FitThreshold, OfOneClassIsUndefined) {
  EXPECT_EQ(fit_threshold(roc_curve(std::vector{0.2}, std::vector{0}), ThresholdRule{}), std::nullopt);
  EXPECT_EQ(fit_threshold(roc_curve(std::vector{0.2}, std::vector{1}), ThresholdRule{}), std::nullopt);
}

TEST(ThresholdRule, IsReadAndNamed) {
  for (const char* text : {"balanced_acc", "acc", "f1_real", "f1_fake", "eer", "fpr=0.01", "fpr=0.001"})
    EXPECT_EQ(ThresholdRule::parse(text).value().text(), text);
  EXPECT_EQ(ThresholdRule{}.text(), "balanced_acc");
  for (const char* text : {"", "auc", "fpr", "fpr=", "fpr=0", "fpr=1", "fpr=2", "fpr=nan", "fpr=0.1x", "ACC"})
    EXPECT_FALSE(ThresholdRule::parse(text)) << text;
}

}  // namespace
}  // namespace voca::model
