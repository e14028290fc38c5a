#pragma once

// Measures of a detector's scores. Real (label 1) is the positive class, fake (label 0) the negative; a score
// is the probability of real. A sample counts as real at threshold t when its score is ≥ t. Equal scores are
// never separated: every curve has one point a distinct score. All of it in double and O(n log n). What the
// data leave undefined is std::nullopt (null in JSON), never 0. Each value is a count divided by a count
// wherever that is possible, rounded once: perfect scores give exactly 1.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <vector>

namespace voca::engine {

/// How many samples score at `threshold` or above.
struct RocPoint {
  double threshold = 0.0;
  std::int64_t tp = 0;  ///< reals among them
  std::int64_t fp = 0;  ///< fakes among them
};

/// From (infinity, 0, 0) down to (smallest score, n_real, n_fake), a point a distinct score. ROC, PR and DET
/// are all read off it.
struct RocCurve {
  std::vector<RocPoint> points;
  std::int64_t n_real = 0;
  std::int64_t n_fake = 0;
};

/// `prob_real` and `labels` are (n). Throws DataError naming the sample whose score is not in [0, 1] or whose
/// label is neither 0 nor 1; InternalError when the lengths differ.
[[nodiscard]] RocCurve roc_curve(std::span<const double> prob_real, std::span<const int> labels);

/// Mann–Whitney: the probability that a real scores above a fake, ties ½. Undefined with one class only.
[[nodiscard]] std::optional<double> auc(const RocCurve& curve);

/// Σ (Rₙ − Rₙ₋₁) Pₙ over distinct thresholds, uninterpolated (scikit-learn's average_precision_score), with
/// real as the positive class, and with fake as the positive class and 1 − score as its score. Undefined
/// without a sample of that class.
[[nodiscard]] std::optional<double> average_precision_real(const RocCurve& curve);
[[nodiscard]] std::optional<double> average_precision_fake(const RocCurve& curve);

/// FPR: fakes taken for real / fakes. FNR: reals taken for fake / reals.
struct EqualErrorRate {
  double nearest = 0.0;       ///< (FPR + FNR) / 2 at argmin |FPR − FNR|; of equals, the highest threshold
  double interpolated = 0.0;  ///< where the line between two points crosses FPR = FNR
  double threshold = 0.0;     ///< of `nearest`; infinity when it is "nothing is real"
};
[[nodiscard]] std::optional<EqualErrorRate> equal_error_rate(const RocCurve& curve);

/// The highest TPR at exactly FPR = `fpr`, linear between points. Undefined with one class only.
[[nodiscard]] std::optional<double> tpr_at_fpr(const RocCurve& curve, double fpr);

/// Counts and rates at one threshold.
struct Decisions {
  double threshold = 0.5;
  std::int64_t real_as_real = 0;
  std::int64_t real_as_fake = 0;
  std::int64_t fake_as_real = 0;
  std::int64_t fake_as_fake = 0;
  std::optional<double> acc;
  std::optional<double> balanced_acc;  ///< mean of the two recalls
  std::optional<double>
      precision_real;                 ///< of what was taken for real, how much is; undefined when nothing was
  std::optional<double> recall_real;  ///< sensitivity, TPR
  std::optional<double> f1_real;
  std::optional<double> precision_fake;
  std::optional<double> recall_fake;  ///< specificity, TNR
  std::optional<double> f1_fake;
};
[[nodiscard]] Decisions decide(const RocCurve& curve, double threshold);

/// Calibration of the probability of real over equal-width bins (i/15, (i+1)/15], the first with 0 in it (Guo
/// et al. 2017, applied to the probability of the positive class).
struct ReliabilityBin {
  std::int64_t n = 0;
  std::optional<double> mean_prob_real{};  ///< undefined where empty
  std::optional<double> fraction_real{};
};
struct Calibration {
  std::optional<double> ece;  ///< Σ n_bin/n · |mean_prob_real − fraction_real|; undefined without samples
  std::vector<ReliabilityBin> bins;
};
inline constexpr int kCalibrationBins = 15;
/// As roc_curve() for its arguments and errors.
[[nodiscard]] Calibration calibration(std::span<const double> prob_real, std::span<const int> labels);

/// Everything measured of a binary detector on one split.
struct BinaryMetrics {
  std::int64_t n_real = 0;
  std::int64_t n_fake = 0;
  std::optional<double> loss;  ///< the caller's; not computed here
  std::optional<double> auc;
  std::optional<double> ap_real;
  std::optional<double> ap_fake;
  std::optional<EqualErrorRate> eer;
  std::optional<double> tpr_at_fpr_1pct;
  std::optional<double> tpr_at_fpr_01pct;  ///< at FPR 0.1 %
  Decisions at_half;                       ///< at threshold 0.5
  Decisions at_threshold;                  ///< at the threshold given
  Calibration calibration;
};

/// Arguments and errors as roc_curve(); `threshold` is the one fitted on val (fit_threshold), 0.5 if there is
/// none.
[[nodiscard]] BinaryMetrics binary_metrics(std::span<const double> prob_real, std::span<const int> labels,
                                           double threshold);
/// The same from a curve at hand.
[[nodiscard]] BinaryMetrics binary_metrics(const RocCurve& curve, Calibration calibration, double threshold);

/// Everything measured of a detector of K ≥ 2 classes. The prediction is the largest probability, of equals
/// the lowest class.
struct ClassMetrics {
  std::int64_t n = 0;
  std::optional<double> loss;  ///< the caller's; not computed here
  std::optional<double> acc;
  std::optional<double> balanced_acc;    ///< mean recall of the classes present
  std::optional<double> auc;             ///< macro: mean of the defined `auc_of_class`
  std::vector<std::int64_t> n_of_class;  ///< (K)
  std::vector<std::optional<double>>
      auc_of_class;  ///< (K) one against the rest; undefined when absent or alone
  std::vector<std::optional<double>> recall_of_class;  ///< (K)
  std::vector<std::vector<std::int64_t>> confusion;    ///< (K, K): [label][prediction]
};

/// `probabilities` is (n, classes) row-major, `labels` (n) in [0, classes). Throws DataError naming the
/// sample with a probability outside [0, 1] or such a label, InternalError when the sizes disagree.
[[nodiscard]] ClassMetrics class_metrics(std::span<const double> probabilities, std::span<const int> labels,
                                         int classes);

/// The object `eval --json` prints, without `split`. The rates on top (`acc`, `f1_real`, `confusion`, …) are
/// those at 0.5; `threshold` is the one given and `at_threshold` the same rates there. Undefined is null.
[[nodiscard]] nlohmann::ordered_json metrics_json(const BinaryMetrics& metrics);
[[nodiscard]] nlohmann::ordered_json metrics_json(const ClassMetrics& metrics);

}  // namespace voca::engine
