#include "model/metrics/metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

#include "engine/base/error.h"

namespace voca::model {
namespace {

void check_score(double score, std::size_t sample) {
  // The negated form also catches NaN.
  if (!(score >= 0.0 && score <= 1.0)) {
    throw engine::DataError(
        "score of sample {}: found {}, expected a probability in [0, 1]; the weights are not finite or the "
        "run has diverged",
        sample, score);
  }
}

void check_label(int label, int classes, std::size_t sample) {
  if (label < 0 || label >= classes) {
    throw engine::DataError("label of sample {}: found {}, expected 0 to {}", sample, label, classes - 1);
  }
}

struct Scored {
  double score;
  bool positive;
};

/// Sorts `samples` by falling score and builds one point per distinct score.
RocCurve curve_of(std::vector<Scored>& samples) {
  std::sort(samples.begin(), samples.end(),
            [](const Scored& a, const Scored& b) { return a.score > b.score; });
  RocCurve curve;
  curve.points.push_back({.threshold = std::numeric_limits<double>::infinity()});
  for (const Scored& sample : samples) {
    if (sample.score != curve.points.back().threshold) {
      curve.points.push_back({.threshold = sample.score, .tp = curve.n_real, .fp = curve.n_fake});
    }
    (sample.positive ? curve.n_real : curve.n_fake) += 1;
    curve.points.back().tp = curve.n_real;
    curve.points.back().fp = curve.n_fake;
  }
  return curve;
}

double ratio(std::int64_t part, std::int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(whole);
}

std::optional<double> ratio_if(std::int64_t part, std::int64_t whole) {
  if (whole == 0) return std::nullopt;
  return ratio(part, whole);
}

bool has_both(const RocCurve& curve) {
  return curve.n_real > 0 && curve.n_fake > 0;
}

}  // namespace

RocCurve roc_curve(std::span<const double> prob_real, std::span<const int> labels) {
  VOCA_CHECK(prob_real.size() == labels.size());
  std::vector<Scored> samples(prob_real.size());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    check_score(prob_real[i], i);
    check_label(labels[i], 2, i);
    samples[i] = {.score = prob_real[i], .positive = labels[i] == 1};
  }
  return curve_of(samples);
}

std::optional<double> auc(const RocCurve& curve) {
  if (!has_both(curve)) return std::nullopt;
  // Doubled trapezoids in integers: exact up to the final division.
  std::int64_t doubled = 0;
  for (std::size_t i = 1; i < curve.points.size(); ++i) {
    const RocPoint& from = curve.points[i - 1];
    const RocPoint& to = curve.points[i];
    doubled += (to.fp - from.fp) * (to.tp + from.tp);
  }
  return ratio(doubled, 2 * curve.n_real * curve.n_fake);
}

std::optional<double> average_precision_real(const RocCurve& curve) {
  if (curve.n_real == 0) return std::nullopt;
  // Reals gained times precision: each term is at most the integer gained, so the average is at most 1.
  double sum = 0.0;
  for (std::size_t i = 1; i < curve.points.size(); ++i) {
    const RocPoint& point = curve.points[i];
    sum += ratio((point.tp - curve.points[i - 1].tp) * point.tp, point.tp + point.fp);
  }
  return sum / static_cast<double>(curve.n_real);
}

std::optional<double> average_precision_fake(const RocCurve& curve) {
  if (curve.n_fake == 0) return std::nullopt;
  double sum = 0.0;
  // From the lowest score up: samples below point i are classified as fake.
  for (std::size_t i = curve.points.size() - 1; i > 0; --i) {
    const std::int64_t fakes = curve.n_fake - curve.points[i - 1].fp;
    const std::int64_t reals = curve.n_real - curve.points[i - 1].tp;
    const std::int64_t gained = curve.points[i].fp - curve.points[i - 1].fp;
    sum += ratio(gained * fakes, fakes + reals);
  }
  return sum / static_cast<double>(curve.n_fake);
}

std::optional<EqualErrorRate> equal_error_rate(const RocCurve& curve) {
  if (!has_both(curve)) return std::nullopt;
  // (FPR − FNR) · n_real · n_fake, exact; increases from −n_real · n_fake to n_real · n_fake.
  const auto difference = [&curve](const RocPoint& point) {
    return point.fp * curve.n_real - (curve.n_real - point.tp) * curve.n_fake;
  };
  std::size_t after = 1;  // first point past the crossing; the last point always qualifies
  while (difference(curve.points[after]) < 0) ++after;
  const RocPoint& left = curve.points[after - 1];
  const RocPoint& right = curve.points[after];
  const RocPoint& nearest = std::abs(difference(right)) < std::abs(difference(left)) ? right : left;

  EqualErrorRate rate;
  rate.nearest = ratio(nearest.fp * curve.n_real + (curve.n_real - nearest.tp) * curve.n_fake,
                       2 * curve.n_real * curve.n_fake);
  rate.threshold = nearest.threshold;
  const auto from = static_cast<double>(difference(left));
  const auto to = static_cast<double>(difference(right));
  const double fakes =
      static_cast<double>(left.fp) * (from - to) + static_cast<double>(right.fp - left.fp) * from;
  rate.interpolated = fakes / ((from - to) * static_cast<double>(curve.n_fake));
  return rate;
}

std::optional<double> tpr_at_fpr(const RocCurve& curve, double fpr) {
  if (!has_both(curve)) return std::nullopt;
  VOCA_CHECK(fpr >= 0.0 && fpr <= 1.0);
  const auto beyond =
      std::partition_point(curve.points.begin(), curve.points.end(),
                           [&](const RocPoint& point) { return ratio(point.fp, curve.n_fake) <= fpr; });
  const RocPoint& left = *std::prev(beyond);
  if (beyond == curve.points.end()) return ratio(left.tp, curve.n_real);
  const double share = (fpr * static_cast<double>(curve.n_fake) - static_cast<double>(left.fp)) /
                       static_cast<double>(beyond->fp - left.fp);
  return (static_cast<double>(left.tp) + static_cast<double>(beyond->tp - left.tp) * share) /
         static_cast<double>(curve.n_real);
}

Decisions decide(const RocCurve& curve, double threshold) {
  VOCA_CHECK(std::isfinite(threshold));
  const auto beyond =
      std::partition_point(curve.points.begin(), curve.points.end(),
                           [&](const RocPoint& point) { return point.threshold >= threshold; });
  const RocPoint& at = *std::prev(beyond);
  Decisions d;
  d.threshold = threshold;
  d.real_as_real = at.tp;
  d.real_as_fake = curve.n_real - at.tp;
  d.fake_as_real = at.fp;
  d.fake_as_fake = curve.n_fake - at.fp;
  d.acc = ratio_if(d.real_as_real + d.fake_as_fake, curve.n_real + curve.n_fake);
  d.recall_real = ratio_if(d.real_as_real, curve.n_real);
  d.recall_fake = ratio_if(d.fake_as_fake, curve.n_fake);
  if (has_both(curve)) {
    d.balanced_acc =
        ratio(d.real_as_real * curve.n_fake + d.fake_as_fake * curve.n_real, 2 * curve.n_real * curve.n_fake);
  }
  d.precision_real = ratio_if(d.real_as_real, d.real_as_real + d.fake_as_real);
  d.precision_fake = ratio_if(d.fake_as_fake, d.fake_as_fake + d.real_as_fake);
  const std::int64_t wrong = d.real_as_fake + d.fake_as_real;
  d.f1_real = ratio_if(2 * d.real_as_real, 2 * d.real_as_real + wrong);
  d.f1_fake = ratio_if(2 * d.fake_as_fake, 2 * d.fake_as_fake + wrong);
  return d;
}

Calibration calibration(std::span<const double> prob_real, std::span<const int> labels) {
  VOCA_CHECK(prob_real.size() == labels.size());
  struct Sums {
    std::int64_t n = 0;
    std::int64_t reals = 0;
    double score = 0.0;
  };
  std::vector<Sums> sums(kCalibrationBins);
  std::array<double, kCalibrationBins> upper_edges{};
  for (std::size_t i = 0; i < upper_edges.size(); ++i) {
    upper_edges[i] = static_cast<double>(i + 1) / kCalibrationBins;
  }
  for (std::size_t i = 0; i < prob_real.size(); ++i) {
    check_score(prob_real[i], i);
    check_label(labels[i], 2, i);
    const auto edge = std::lower_bound(upper_edges.begin(), upper_edges.end(), prob_real[i]);
    Sums& in = sums[static_cast<std::size_t>(edge - upper_edges.begin())];
    in.n += 1;
    in.reals += labels[i];
    in.score += prob_real[i];
  }
  Calibration result;
  double gaps = 0.0;
  for (const Sums& in : sums) {
    ReliabilityBin bin{.n = in.n};
    if (in.n > 0) {
      bin.mean_prob_real = in.score / static_cast<double>(in.n);
      bin.fraction_real = ratio(in.reals, in.n);
      gaps += std::abs(in.score - static_cast<double>(in.reals));
    }
    result.bins.push_back(bin);
  }
  if (!prob_real.empty()) result.ece = gaps / static_cast<double>(prob_real.size());
  return result;
}

BinaryMetrics binary_metrics(std::span<const double> prob_real, std::span<const int> labels,
                             double threshold) {
  return binary_metrics(roc_curve(prob_real, labels), calibration(prob_real, labels), threshold);
}

BinaryMetrics binary_metrics(const RocCurve& curve, Calibration calibration, double threshold) {
  BinaryMetrics m;
  m.n_real = curve.n_real;
  m.n_fake = curve.n_fake;
  m.auc = auc(curve);
  m.ap_real = average_precision_real(curve);
  m.ap_fake = average_precision_fake(curve);
  m.eer = equal_error_rate(curve);
  m.tpr_at_fpr_1pct = tpr_at_fpr(curve, 0.01);
  m.tpr_at_fpr_01pct = tpr_at_fpr(curve, 0.001);
  m.at_half = decide(curve, 0.5);
  m.at_threshold = decide(curve, threshold);
  m.calibration = std::move(calibration);
  return m;
}

ClassMetrics class_metrics(std::span<const double> probabilities, std::span<const int> labels, int classes) {
  VOCA_CHECK(classes >= 2);
  const auto k = static_cast<std::size_t>(classes);
  VOCA_CHECK(probabilities.size() == labels.size() * k);
  ClassMetrics m;
  m.n = std::ssize(labels);
  m.n_of_class.assign(k, 0);
  m.confusion.assign(k, std::vector<std::int64_t>(k, 0));
  std::int64_t right = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    check_label(labels[i], classes, i);
    const std::span<const double> row = probabilities.subspan(i * k, k);
    for (const double probability : row) check_score(probability, i);
    const auto label = static_cast<std::size_t>(labels[i]);
    const auto predicted = static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
    m.n_of_class[label] += 1;
    m.confusion[label][predicted] += 1;
    right += label == predicted ? 1 : 0;
  }
  m.acc = ratio_if(right, m.n);

  const auto mean_of_defined = [](const std::vector<std::optional<double>>& values) -> std::optional<double> {
    double sum = 0.0;
    int defined = 0;
    for (const std::optional<double>& value : values) {
      sum += value.value_or(0.0);
      defined += value.has_value() ? 1 : 0;
    }
    if (defined == 0) return std::nullopt;
    return sum / defined;
  };
  std::vector<Scored> samples(labels.size());
  for (std::size_t c = 0; c < k; ++c) {
    for (std::size_t i = 0; i < samples.size(); ++i) {
      samples[i] = {.score = probabilities[i * k + c], .positive = static_cast<std::size_t>(labels[i]) == c};
    }
    m.auc_of_class.push_back(auc(curve_of(samples)));
    m.recall_of_class.push_back(ratio_if(m.confusion[c][c], m.n_of_class[c]));
  }
  m.auc = mean_of_defined(m.auc_of_class);
  m.balanced_acc = mean_of_defined(m.recall_of_class);
  return m;
}

}  // namespace voca::model
