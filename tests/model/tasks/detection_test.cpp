#include "model/tasks/detection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/base/error.h"
#include "tests/engine/support/files.h"
#include "tests/engine/support/predictions.h"

namespace voca::model {
namespace {

using engine::test::message_of;
using engine::test::of_logits;
using ::testing::AllOf;
using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(Probabilities, DoNotOverflow) {
  EXPECT_THAT(probabilities(of_logits({0, std::log(3), -std::log(3), 1000, -1000, -745})),
              ElementsAre(0.5, DoubleEq(0.75), DoubleEq(0.25), 1, 0,
                          DoubleNear(0, std::numeric_limits<double>::denorm_min())));
  EXPECT_THAT(probabilities(of_logits({1, 1, 1, 1e4, 1e4 - std::log(3), -1e4, 0, -1e308, 1e308}, 3)),
              ElementsAre(DoubleEq(1 / 3.0), DoubleEq(1 / 3.0), DoubleEq(1 / 3.0), DoubleNear(0.75, 1e-12),
                          DoubleNear(0.25, 1e-12), 0, 0, 0, 1));
}

TEST(Measure, IsOfTheKindOfThePredictions) {
  engine::Predictions binary = of_logits({-1, 1, 0.5, 2});
  binary.losses = {0.25, 0.5, 0.75, 1};
  const auto two = std::get<BinaryMetrics>(measure(binary, 0.7));
  EXPECT_EQ(two.loss, 0.625);
  EXPECT_EQ(two.auc, 1);
  EXPECT_EQ(two.at_half.acc, 0.75);
  EXPECT_EQ(two.at_threshold.acc, 1);
  engine::Predictions classes = of_logits({2, 0, 0, 2, 2, 0}, 2);
  const auto three = std::get<ClassMetrics>(measure(classes));
  EXPECT_FALSE(three.loss);
  EXPECT_EQ(three.acc, 1);
  EXPECT_THAT(message_of<engine::DataError>([] { (void)measure(engine::Predictions{}); }),
              HasSubstr("no sample of the split could be used"));
}

TEST(FitThreshold, IsFittedOnTwoClassesAlone) {
  const engine::Predictions separable = of_logits({-3, -1, -2, 0, -4, 5});  // real from a logit of −1 on
  const auto threshold = fit_threshold(separable, ThresholdRule{});
  ASSERT_TRUE(threshold);
  EXPECT_EQ(std::get<BinaryMetrics>(measure(separable, *threshold)).at_threshold.acc, 1);
  EXPECT_LT(std::get<BinaryMetrics>(measure(separable, *threshold)).at_half.acc, 1);
  EXPECT_FALSE(fit_threshold(of_logits({0, 1, 1, 0}, 2), ThresholdRule{}));
  engine::Predictions one_class = separable;
  std::vector<double>& labels = one_class.targets[0].values;
  std::fill(labels.begin(), labels.end(), 1);
  EXPECT_FALSE(fit_threshold(one_class, ThresholdRule{}));
}

/// Values by the names under which checkpoints keep them.
std::optional<double> kept(const std::vector<engine::MeasuredValue>& measured, std::string_view name) {
  const auto found =
      std::find_if(measured.begin(), measured.end(), [&](const auto& value) { return value.name == name; });
  EXPECT_NE(found, measured.end()) << name;
  return found == measured.end() ? std::nullopt : found->value;
}

TEST(DetectionTask, ValidatesAtTheThresholdThatItFits) {
  engine::Predictions val = of_logits({-3, -1, -2, 0, -4, 5});
  val.losses = {1, 2, 3, 4, 5, 6};
  const std::vector<engine::MeasuredValue> measured = DetectionTask(1).validate(val);
  const std::optional<double> threshold = fit_threshold(val, ThresholdRule{});
  const auto metrics = std::get<BinaryMetrics>(measure(val, *threshold));
  EXPECT_EQ(kept(measured, "auc"), metrics.auc);
  EXPECT_EQ(kept(measured, "ap"), metrics.ap_real);
  EXPECT_EQ(kept(measured, "acc"), metrics.at_half.acc);
  EXPECT_EQ(kept(measured, "loss"), 3.5);
  EXPECT_EQ(kept(measured, "threshold"), threshold);
  EXPECT_EQ(measured.back().record, "val_threshold");
  const ThresholdRule none_passes{.by = ThresholdBy::kFpr, .fpr = 0.01};
  EXPECT_EQ(kept(DetectionTask(1, none_passes).validate(val), "threshold"), fit_threshold(val, none_passes));
  EXPECT_FALSE(kept(DetectionTask(2).validate(of_logits({0, 1, 1, 0}, 2)), "threshold"));
}

TEST(DetectionTask, SelectsByWhatIsDefinedForItsClasses) {
  EXPECT_EQ(DetectionTask(1).selection("ap").better, Better::kHigher);
  EXPECT_EQ(DetectionTask(3).selection("loss").better, Better::kLower);
  EXPECT_THAT(message_of<engine::UsageError>([] { (void)DetectionTask(1).selection("speed"); }),
              HasSubstr("--select_by: \"speed\" is not one of auc, ap, loss, acc"));
  EXPECT_THAT(message_of<engine::UsageError>([] { (void)DetectionTask(3).selection("ap"); }),
              HasSubstr("the model has 3; use one of auc, loss, acc"));
}

TEST(DetectionTask, AMeasureOfTwoClassesIsRefusedOnASplitOfOne) {
  const std::vector<engine::PredictionColumn> one_class{{.name = kLabel, .width = 1, .values = {1, -1, 1}}};
  const std::vector<engine::PredictionColumn> two_classes{{.name = kLabel, .width = 1, .values = {1, 0, 1}}};
  for (const char* by : {"auc", "ap"}) {
    EXPECT_THAT(message_of<engine::UsageError>([&] { DetectionTask(1).check_selection(by, one_class); }),
                AllOf(StartsWith("--select_by"), HasSubstr("one class only; use one of loss, acc")));
    EXPECT_NO_THROW(DetectionTask(1).check_selection(by, two_classes));
  }
  for (const char* by : {"acc", "loss"}) EXPECT_NO_THROW(DetectionTask(1).check_selection(by, one_class));
  EXPECT_THROW(DetectionTask(3).check_selection("ap", two_classes), engine::UsageError);
}

}  // namespace
}  // namespace voca::model
