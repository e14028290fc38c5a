#include "model/metrics/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "engine/base/error.h"
#include "tests/model/metrics/scores.h"

namespace voca::model {
namespace {

using nlohmann::json;
using test::count_from;
using test::draw;
using test::Random;
using test::Sample;
using test::samples;
using test::thresholds_descending;

constexpr double kExact = 1e-12;  // sums of a few thousand terms in double

Sample swapped(const Sample& sample) {
  Sample other;
  for (std::size_t i = 0; i < sample.scores.size(); ++i) {
    other.scores.push_back(1.0 - sample.scores[i]);
    other.labels.push_back(1 - sample.labels[i]);
  }
  return other;
}

double brute_average_precision(const Sample& sample) {
  const auto reals = static_cast<double>(std::count(sample.labels.begin(), sample.labels.end(), 1));
  double sum = 0.0;
  double recall = 0.0;
  for (const double threshold : thresholds_descending(sample)) {
    const RocPoint point = count_from(sample, threshold);
    const auto tp = static_cast<double>(point.tp);
    sum += (tp / reals - recall) * tp / static_cast<double>(point.tp + point.fp);
    recall = tp / reals;
  }
  return sum;
}

TEST(Metrics, RocCurveCountsEveryDistinctThreshold) {
  for (const Sample& sample : samples()) {
    const RocCurve curve = roc_curve(sample.scores, sample.labels);
    const std::vector<double> thresholds = thresholds_descending(sample);
    ASSERT_EQ(curve.points.size(), thresholds.size() + 1);
    EXPECT_EQ(curve.points[0].tp, 0);
    EXPECT_EQ(curve.points[0].fp, 0);
    for (std::size_t i = 0; i < thresholds.size(); ++i) {
      const RocPoint expected = count_from(sample, thresholds[i]);
      EXPECT_EQ(curve.points[i + 1].threshold, thresholds[i]);
      EXPECT_EQ(curve.points[i + 1].tp, expected.tp);
      EXPECT_EQ(curve.points[i + 1].fp, expected.fp);
    }
  }
}

TEST(Metrics, AucIsTheShareOfPairsInOrderWithTiesHalf) {
  for (const Sample& sample : samples()) {
    double wins = 0.0;
    double pairs = 0.0;
    for (std::size_t r = 0; r < sample.scores.size(); ++r) {
      for (std::size_t f = 0; f < sample.scores.size(); ++f) {
        if (sample.labels[r] != 1 || sample.labels[f] != 0) continue;
        pairs += 1.0;
        if (sample.scores[r] > sample.scores[f]) wins += 1.0;
        if (sample.scores[r] == sample.scores[f]) wins += 0.5;
      }
    }
    EXPECT_NEAR(auc(roc_curve(sample.scores, sample.labels)).value(), wins / pairs, kExact);
  }
}

TEST(Metrics, AveragePrecisionSumsOverDistinctThresholds) {
  for (const Sample& sample : samples()) {
    const RocCurve curve = roc_curve(sample.scores, sample.labels);
    EXPECT_NEAR(average_precision_real(curve).value(), brute_average_precision(sample), kExact);
    EXPECT_NEAR(average_precision_fake(curve).value(), brute_average_precision(swapped(sample)), kExact);
  }
}

TEST(Metrics, NearestEerIsAtTheSmallestDifference) {
  for (const Sample& sample : samples()) {
    const RocCurve curve = roc_curve(sample.scores, sample.labels);
    double smallest = 2.0;
    double expected = 0.0;
    for (const RocPoint& point : curve.points) {
      const double fpr = static_cast<double>(point.fp) / static_cast<double>(curve.n_fake);
      const double fnr = 1.0 - static_cast<double>(point.tp) / static_cast<double>(curve.n_real);
      if (std::abs(fpr - fnr) < smallest - kExact) {
        smallest = std::abs(fpr - fnr);
        expected = (fpr + fnr) / 2.0;
      }
    }
    EXPECT_NEAR(equal_error_rate(curve).value().nearest, expected, kExact);
  }
}

TEST(Metrics, InterpolatedEerLiesOnTheCurveWhereBothErrorsAgree) {
  for (const Sample& sample : samples()) {
    const RocCurve curve = roc_curve(sample.scores, sample.labels);
    const double eer = equal_error_rate(curve).value().interpolated;
    // Somewhere on the polyline FPR = eer and TPR = 1 − eer at once.
    double closest = 2.0;
    for (std::size_t i = 1; i < curve.points.size(); ++i) {
      for (int step = 0; step <= 2000; ++step) {
        const double t = step / 2000.0;
        const auto along = [&](std::int64_t from, std::int64_t to, std::int64_t all) {
          return (static_cast<double>(from) + t * static_cast<double>(to - from)) / static_cast<double>(all);
        };
        const double fpr = along(curve.points[i - 1].fp, curve.points[i].fp, curve.n_fake);
        const double tpr = along(curve.points[i - 1].tp, curve.points[i].tp, curve.n_real);
        closest = std::min(closest, std::max(std::abs(fpr - eer), std::abs(1.0 - tpr - eer)));
      }
    }
    EXPECT_LT(closest, 1e-3);  // the polyline is sampled 2000 times a segment
  }
}

TEST(Metrics, InterpolatedEerOfAKnownCurve) {
  // Points (0, 0), (0, ½), (½, ½), (½, 1), (1, 1): the diagonal is met at (½, ½).
  const RocCurve staircase = roc_curve(std::vector{0.9, 0.8, 0.7, 0.6}, std::vector{1, 0, 1, 0});
  EXPECT_DOUBLE_EQ(equal_error_rate(staircase).value().interpolated, 0.5);
  // (0, 0), (0, ⅔), (1, 1): on the last line FPR = t and FNR = (1 − t) / 3.
  const RocCurve slope = roc_curve(std::vector{0.9, 0.8, 0.2, 0.2}, std::vector{1, 1, 1, 0});
  EXPECT_DOUBLE_EQ(equal_error_rate(slope).value().interpolated, 0.25);
  EXPECT_DOUBLE_EQ(equal_error_rate(slope).value().nearest, (0.0 + 1.0 / 3.0) / 2.0);
  EXPECT_EQ(equal_error_rate(slope).value().threshold, 0.8);
}

TEST(Metrics, TprAtFprIsTheUpperEndOfAStepAndLinearBetween) {
  // (0, 0), (0, ¼), (¼, ¼), (¼, ¾), (1, 1)
  const RocCurve curve =
      roc_curve(std::vector{0.9, 0.8, 0.7, 0.7, 0.1, 0.1, 0.1, 0.1}, std::vector{1, 0, 1, 1, 1, 0, 0, 0});
  EXPECT_DOUBLE_EQ(tpr_at_fpr(curve, 0.0).value(), 0.25);
  EXPECT_DOUBLE_EQ(tpr_at_fpr(curve, 0.1).value(), 0.25);
  EXPECT_DOUBLE_EQ(tpr_at_fpr(curve, 0.25).value(), 0.75);
  EXPECT_DOUBLE_EQ(tpr_at_fpr(curve, 0.625).value(), 0.875);
  EXPECT_DOUBLE_EQ(tpr_at_fpr(curve, 1.0).value(), 1.0);
}

// 19 of 20 pairs and the like: a quotient of counts is the double nearest to it, as a reader would type it.
TEST(Metrics, QuotientsOfCountsAreRoundedOnce) {
  Sample sample;
  for (int i = 0; i < 20; ++i) {  // every fake below every real but one
    sample.scores.push_back(i < 19 ? 0.7 : 0.3);
    sample.labels.push_back(1);
    sample.scores.push_back(0.5);
    sample.labels.push_back(0);
  }
  EXPECT_EQ(auc(roc_curve(sample.scores, sample.labels)), 0.95);
  for (std::int64_t n = 1; n < 60; ++n) {
    for (std::int64_t above = 0; above <= n; ++above) {
      std::vector<double> scores(static_cast<std::size_t>(n), 0.2);
      std::fill_n(scores.begin(), above, 0.8);
      std::vector<int> labels(scores.size(), 1);
      scores.insert(scores.end(), 3, 0.5);
      labels.insert(labels.end(), 3, 0);
      const RocCurve curve = roc_curve(scores, labels);
      const double exact = static_cast<double>(above) / static_cast<double>(n);
      EXPECT_EQ(auc(curve), exact);
      EXPECT_EQ(decide(curve, 0.5).recall_real, exact);
      EXPECT_EQ(decide(curve, 0.6).balanced_acc, static_cast<double>(above + n) / static_cast<double>(2 * n));
    }
  }
}

// Summing recalls of 1/n each went above 1.
TEST(Metrics, PerfectScoresHaveAPrecisionOfExactlyOne) {
  for (int n = 1; n < 400; ++n) {
    Sample sample;
    for (int i = 0; i < n; ++i) {
      sample.scores.push_back(0.5 + 0.5 * (i + 1) / (n + 1));
      sample.labels.push_back(1);
      sample.scores.push_back(0.5 * (i + 1) / (n + 1));
      sample.labels.push_back(0);
    }
    const RocCurve curve = roc_curve(sample.scores, sample.labels);
    EXPECT_EQ(average_precision_real(curve), 1.0) << n;
    EXPECT_EQ(average_precision_fake(curve), 1.0) << n;
    EXPECT_EQ(auc(curve), 1.0) << n;
  }
}

TEST(Metrics, DecisionsTakeAScoreEqualToTheThresholdForReal) {
  const RocCurve curve = roc_curve(std::vector{0.5, 0.5, 0.4, 0.6, 0.6}, std::vector{1, 0, 1, 1, 0});
  const Decisions d = decide(curve, 0.5);
  EXPECT_EQ(d.real_as_real, 2);
  EXPECT_EQ(d.real_as_fake, 1);
  EXPECT_EQ(d.fake_as_real, 2);
  EXPECT_EQ(d.fake_as_fake, 0);
  EXPECT_DOUBLE_EQ(d.acc.value(), 0.4);
  EXPECT_EQ(decide(curve, std::nextafter(0.5, 1.0)).real_as_real, 1);
}

TEST(Metrics, CalibrationGapIsWeightedByBin) {
  // Bins 0 and 14; gaps |0.02 − 0.5| over two samples and |0.99 − 1| over two.
  const Calibration c = calibration(std::vector{0.0, 0.04, 1.0, 0.98}, std::vector{1, 0, 1, 1});
  ASSERT_EQ(c.bins.size(), 15U);
  EXPECT_EQ(c.bins[0].n, 2);
  EXPECT_EQ(c.bins[14].n, 2);
  EXPECT_FALSE(c.bins[7].mean_prob_real.has_value());
  EXPECT_DOUBLE_EQ(c.bins[0].mean_prob_real.value(), 0.02);
  EXPECT_DOUBLE_EQ(c.bins[0].fraction_real.value(), 0.5);
  EXPECT_NEAR(c.ece.value(), 0.5 * 0.48 + 0.5 * 0.01, kExact);
}

TEST(Metrics, CalibrationBinsAreClosedAbove) {
  const Calibration c = calibration(std::vector{0.2, std::nextafter(0.2, 1.0), 0.0}, std::vector{1, 0, 0});
  EXPECT_EQ(c.bins[0].n, 1);
  EXPECT_EQ(c.bins[2].n, 1);
  EXPECT_EQ(c.bins[3].n, 1);
}

TEST(Metrics, WhatOneClassLeavesUndefinedIsNull) {
  const json reals = metrics_json(binary_metrics(std::vector{0.2, 0.9}, std::vector{1, 1}, 0.5));
  for (const char* key : {"auc", "ap_fake", "eer", "eer_interpolated", "tpr_at_fpr_1pct", "tpr_at_fpr_01pct",
                          "balanced_acc", "recall_fake", "specificity", "loss"}) {
    ASSERT_TRUE(reals.contains(key)) << key;
    EXPECT_TRUE(reals[key].is_null()) << key;
  }
  EXPECT_EQ(reals["acc"], 0.5);
  EXPECT_EQ(reals["ap_real"], 1.0);

  const json nothing = metrics_json(binary_metrics(std::vector<double>(), std::vector<int>(), 0.5));
  EXPECT_EQ(nothing["n"], 0);
  for (const char* key : {"acc", "auc", "ap_real", "ap_fake", "f1_real", "ece"})
    EXPECT_TRUE(nothing[key].is_null()) << key;
}

TEST(Metrics, JsonCarriesTheKeysOfTheCommandLine) {
  BinaryMetrics metrics = binary_metrics(std::vector{0.2, 0.6, 0.45, 0.9}, std::vector{0, 0, 1, 1}, 0.4);
  metrics.loss = 0.25;
  const nlohmann::ordered_json result = metrics_json(metrics);
  for (const char* key : {"n", "n_real", "n_fake", "loss", "acc", "balanced_acc", "auc", "ap_real", "ap_fake",
                          "eer", "f1_real", "f1_fake", "threshold", "confusion"}) {
    EXPECT_TRUE(result.contains(key)) << key;
  }
  EXPECT_EQ(result["loss"], 0.25);
  EXPECT_EQ(result["acc"], 0.5);
  EXPECT_EQ(result["threshold"], 0.4);
  EXPECT_EQ(result["at_threshold"]["acc"], 0.75);
  EXPECT_EQ(result["confusion"]["real_as_fake"], 1);
  EXPECT_EQ(result["at_threshold"]["confusion"]["real_as_fake"], 0);
  EXPECT_EQ(result["reliability"].size(), 15U);
  EXPECT_EQ(result["reliability"][14]["to"], 1.0);
}

TEST(Metrics, ClassesPresentDecideTheMacroMeans) {
  // Class 2 never occurs: its AUC and recall are undefined and stay out of the means.
  const std::vector<double> probabilities = {0.7, 0.2, 0.1, 0.4, 0.5, 0.1, 0.6, 0.3, 0.1, 0.1, 0.3, 0.6};
  const ClassMetrics m = class_metrics(probabilities, std::vector{0, 1, 1, 1}, 3);
  EXPECT_FALSE(m.auc_of_class[2].has_value());
  EXPECT_FALSE(m.recall_of_class[2].has_value());
  EXPECT_DOUBLE_EQ(m.auc_of_class[0].value(), 1.0);
  EXPECT_DOUBLE_EQ(m.recall_of_class[1].value(), 1.0 / 3.0);
  EXPECT_DOUBLE_EQ(m.balanced_acc.value(), 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(m.auc.value(), (1.0 + m.auc_of_class[1].value()) / 2.0);
  EXPECT_EQ(m.confusion[1][2], 1);
  EXPECT_TRUE(metrics_json(m)["auc_of_class"][2].is_null());
}

TEST(Metrics, TwoClassesAgreeWithTheBinaryForm) {
  const Sample sample = draw(120, 0.4, 20, 9);
  std::vector<double> both;
  for (const double score : sample.scores) {
    both.push_back(1.0 - score);
    both.push_back(score);
  }
  const ClassMetrics m = class_metrics(both, sample.labels, 2);
  EXPECT_DOUBLE_EQ(m.auc_of_class[1].value(), auc(roc_curve(sample.scores, sample.labels)).value());
}

TEST(Metrics, RefusesScoresAndLabelsOutOfRangeByPosition) {
  const auto message = [](const std::vector<double>& scores, const std::vector<int>& labels) -> std::string {
    try {
      (void)roc_curve(scores, labels);
    } catch (const engine::DataError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message({0.5, std::numeric_limits<double>::quiet_NaN()}, {0, 1}).find("sample 1"),
            std::string::npos);
  EXPECT_NE(message({1.5, 0.5}, {0, 1}).find("sample 0"), std::string::npos);
  EXPECT_NE(message({0.5, 0.5}, {0, -1}).find("label of sample 1"), std::string::npos);
  EXPECT_THROW((void)roc_curve(std::vector{0.5}, std::vector{0, 1}), engine::InternalError);
  EXPECT_THROW((void)class_metrics(std::vector{0.5, 0.5}, std::vector{2}, 2), engine::DataError);
}

TEST(Metrics, OrderOfTheSamplesChangesNothing) {
  const Sample sample = draw(500, 0.4, 30, 11);
  Sample reversed = sample;
  std::reverse(reversed.scores.begin(), reversed.scores.end());
  std::reverse(reversed.labels.begin(), reversed.labels.end());
  const auto of = [](const Sample& s) {
    nlohmann::ordered_json result = metrics_json(binary_metrics(s.scores, s.labels, 0.4));
    result.erase("ece");  // sums of scores round in their order
    result.erase("reliability");
    return result.dump();
  };
  EXPECT_EQ(of(sample), of(reversed));
}

void expect_equal(const std::optional<double>& value, const json& expected, const std::string& what) {
  ASSERT_EQ(value.has_value(), !expected.is_null()) << what;
  if (!value) return;
  EXPECT_NEAR(*value, expected.get<double>(), kExact) << what;
}

void expect_rates(const Decisions& d, const json& expected, const std::string& name) {
  expect_equal(d.acc, expected.at("acc"), name + ": acc");
  expect_equal(d.balanced_acc, expected.at("balanced_acc"), name + ": balanced_acc");
  expect_equal(d.precision_real, expected.at("precision_real"), name + ": precision_real");
  expect_equal(d.recall_real, expected.at("recall_real"), name + ": recall_real");
  expect_equal(d.f1_real, expected.at("f1_real"), name + ": f1_real");
  expect_equal(d.precision_fake, expected.at("precision_fake"), name + ": precision_fake");
  expect_equal(d.recall_fake, expected.at("recall_fake"), name + ": recall_fake");
  expect_equal(d.f1_fake, expected.at("f1_fake"), name + ": f1_fake");
  EXPECT_EQ(expected.at("confusion").get<std::vector<std::int64_t>>(),
            (std::vector{d.real_as_real, d.real_as_fake, d.fake_as_real, d.fake_as_fake}))
      << name;
}

void expect_calibration(const Calibration& c, const json& expected, const std::string& name) {
  const auto fractions = expected.at("fraction_real").get<std::vector<double>>();
  const auto means = expected.at("mean_prob_real").get<std::vector<double>>();
  std::size_t filled = 0;
  for (const ReliabilityBin& bin : c.bins) {
    if (bin.n == 0) continue;
    ASSERT_LT(filled, fractions.size()) << name;
    EXPECT_NEAR(bin.fraction_real.value(), fractions[filled], kExact) << name;
    EXPECT_NEAR(bin.mean_prob_real.value(), means[filled], kExact) << name;
    ++filled;
  }
  EXPECT_EQ(filled, fractions.size()) << name;
}

json goldens() {
  std::ifstream in(std::filesystem::path(VOCA_GOLDEN_DIR) / "metrics" / "metrics.json");
  return json::parse(in);
}

TEST(Metrics, BinaryMeasuresAreScikitLearns) {
  const json all = goldens();
  for (const json& from : all.at("binary")) {
    const auto name = from.at("name").get<std::string>();
    const json& expected = from.at("expected");
    const BinaryMetrics m = binary_metrics(from.at("scores").get<std::vector<double>>(),
                                           from.at("labels").get<std::vector<int>>(), from.at("threshold"));
    expect_equal(m.auc, expected.at("auc"), name + ": auc");
    expect_equal(m.ap_real, expected.at("ap_real"), name + ": ap_real");
    expect_equal(m.ap_fake, expected.at("ap_fake"), name + ": ap_fake");
    expect_rates(m.at_half, expected.at("at_half"), name + " at 0.5");
    expect_rates(m.at_threshold, expected.at("at_threshold"), name + " at the threshold");
    ASSERT_EQ(m.eer.has_value(), expected.contains("eer")) << name;
    if (!m.eer) continue;
    EXPECT_NEAR(m.eer->nearest, expected.at("eer").get<double>(), kExact) << name;
    expect_equal(m.tpr_at_fpr_1pct, expected.at("tpr_at_fpr_1pct"), name + ": TPR at 1 %");
    expect_equal(m.tpr_at_fpr_01pct, expected.at("tpr_at_fpr_01pct"), name + ": TPR at 0.1 %");
    expect_calibration(m.calibration, expected, name);
  }
}

TEST(Metrics, ClassMeasuresAreScikitLearns) {
  const json all = goldens();
  for (const json& from : all.at("classes")) {
    const json& expected = from.at("expected");
    const ClassMetrics m = class_metrics(from.at("probabilities").get<std::vector<double>>(),
                                         from.at("labels").get<std::vector<int>>(), from.at("classes"));
    expect_equal(m.acc, expected.at("acc"), "acc");
    expect_equal(m.balanced_acc, expected.at("balanced_acc"), "balanced_acc");
    expect_equal(m.auc, expected.at("auc"), "auc");
    for (std::size_t c = 0; c < m.recall_of_class.size(); ++c) {
      expect_equal(m.recall_of_class[c], expected.at("recall")[c], "recall");
    }
    EXPECT_EQ(m.confusion, expected.at("confusion").get<std::vector<std::vector<std::int64_t>>>());
  }
}

}  // namespace
}  // namespace voca::model
