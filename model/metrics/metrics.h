#pragma once

// Metrics of a detector's scores. Real (label 1) is the positive class, fake (label 0) the negative; a score
// is the probability of real. A sample is classified as real at threshold t if its score is ≥ t. Equal scores
// are never separated: every curve has one point per distinct score. Everything is in double and O(n log n).
// Undefined values are std::nullopt (null in JSON), never 0. Where possible, a value is a ratio of counts,
// rounded once: perfect scores give exactly 1.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <vector>

namespace voca::model {

/// Samples with a score ≥ `threshold`.
struct RocPoint {
  double threshold = 0.0;
  std::int64_t tp = 0;  ///< real samples among them
  std::int64_t fp = 0;  ///< fake samples among them
};

/// Points from (infinity, 0, 0) down to (smallest score, n_real, n_fake), one per distinct score. ROC, PR and
/// DET curves all derive from it.
struct RocCurve {
  std::vector<RocPoint> points;
  std::int64_t n_real = 0;
  std::int64_t n_fake = 0;
};

/// `prob_real` and `labels` are (n). Throws DataError naming a sample whose score is outside [0, 1] or whose
/// label is neither 0 nor 1; InternalError if the lengths differ.
[[nodiscard]] RocCurve roc_curve(std::span<const double> prob_real, std::span<const int> labels);

/// Mann–Whitney: the probability that a real sample scores above a fake, ties counting ½. Undefined if only
/// one class is present.
[[nodiscard]] std::optional<double> auc(const RocCurve& curve);

/// Σ (Rₙ − Rₙ₋₁) Pₙ over distinct thresholds, not interpolated (scikit-learn's average_precision_score), with
/// real as the positive class, or with fake as the positive class and 1 − score as its score. Undefined
/// without samples of the positive class.
[[nodiscard]] std::optional<double> average_precision_real(const RocCurve& curve);
[[nodiscard]] std::optional<double> average_precision_fake(const RocCurve& curve);

/// FPR: fraction of fakes classified as real. FNR: fraction of reals classified as fake.
struct EqualErrorRate {
  double nearest = 0.0;       ///< (FPR + FNR) / 2 at argmin |FPR − FNR|; ties take the highest threshold
  double interpolated = 0.0;  ///< where linear interpolation crosses FPR = FNR
  double threshold = 0.0;     ///< of `nearest`; infinity if nothing is classified as real
};
[[nodiscard]] std::optional<EqualErrorRate> equal_error_rate(const RocCurve& curve);

/// The highest TPR at exactly FPR = `fpr`, interpolated linearly. Undefined if only one class is present.
[[nodiscard]] std::optional<double> tpr_at_fpr(const RocCurve& curve, double fpr);

/// Confusion counts and rates at one threshold.
struct Decisions {
  double threshold = 0.5;
  std::int64_t real_as_real = 0;
  std::int64_t real_as_fake = 0;
  std::int64_t fake_as_real = 0;
  std::int64_t fake_as_fake = 0;
  std::optional<double> acc;
  std::optional<double> balanced_acc;  ///< mean of the two recalls
  std::optional<double>
      precision_real;                 ///< reals among samples classified as real; undefined if there are none
  std::optional<double> recall_real;  ///< sensitivity, TPR
  std::optional<double> f1_real;
  std::optional<double> precision_fake;
  std::optional<double> recall_fake;  ///< specificity, TNR
  std::optional<double> f1_fake;
};
[[nodiscard]] Decisions decide(const RocCurve& curve, double threshold);

/// Calibration of the probability of real over equal-width bins (i/15, (i+1)/15]; the first also contains 0
/// (Guo et al. 2017, applied to the probability of the positive class).
struct ReliabilityBin {
  std::int64_t n = 0;
  std::optional<double> mean_prob_real{};  ///< undefined if the bin is empty
  std::optional<double> fraction_real{};
};
struct Calibration {
  std::optional<double> ece;  ///< Σ n_bin/n · |mean_prob_real − fraction_real|; undefined without samples
  std::vector<ReliabilityBin> bins;
};
inline constexpr int kCalibrationBins = 15;
/// Arguments and errors as for roc_curve().
[[nodiscard]] Calibration calibration(std::span<const double> prob_real, std::span<const int> labels);

/// All metrics of a binary detector on one split.
struct BinaryMetrics {
  std::int64_t n_real = 0;
  std::int64_t n_fake = 0;
  std::optional<double> loss;  ///< set by the caller
  std::optional<double> auc;
  std::optional<double> ap_real;
  std::optional<double> ap_fake;
  std::optional<EqualErrorRate> eer;
  std::optional<double> tpr_at_fpr_1pct;
  std::optional<double> tpr_at_fpr_01pct;  ///< at FPR 0.1 %
  Decisions at_half;                       ///< at threshold 0.5
  Decisions at_threshold;                  ///< at the given threshold
  Calibration calibration;
};

/// Arguments and errors as for roc_curve(); `threshold` is the one fitted on the validation split
/// (fit_threshold), or 0.5.
[[nodiscard]] BinaryMetrics binary_metrics(std::span<const double> prob_real, std::span<const int> labels,
                                           double threshold);
/// binary_metrics() from an existing curve.
[[nodiscard]] BinaryMetrics binary_metrics(const RocCurve& curve, Calibration calibration, double threshold);

/// All metrics of a detector with K ≥ 2 classes. The prediction is the class of the largest probability; ties
/// take the lowest class.
struct ClassMetrics {
  std::int64_t n = 0;
  std::optional<double> loss;  ///< set by the caller
  std::optional<double> acc;
  std::optional<double> balanced_acc;    ///< mean recall over the classes present
  std::optional<double> auc;             ///< macro average of the defined `auc_of_class`
  std::vector<std::int64_t> n_of_class;  ///< (K)
  std::vector<std::optional<double>>
      auc_of_class;  ///< (K) one-vs-rest; undefined if the class is absent or the only one
  std::vector<std::optional<double>> recall_of_class;  ///< (K)
  std::vector<std::vector<std::int64_t>> confusion;    ///< (K, K): [label][prediction]
};

/// `probabilities` is (n, classes), row-major; `labels` is (n) in [0, classes). Throws DataError naming a
/// sample with a probability outside [0, 1] or a label out of range, InternalError if the sizes disagree.
[[nodiscard]] ClassMetrics class_metrics(std::span<const double> probabilities, std::span<const int> labels,
                                         int classes);

/// The object that `eval --json` prints, without `split`. The top-level rates (`acc`, `f1_real`, `confusion`,
/// …) are those at 0.5; `threshold` is the given one, and `at_threshold` has the rates there. Undefined
/// values are null.
[[nodiscard]] nlohmann::ordered_json metrics_json(const BinaryMetrics& metrics);
[[nodiscard]] nlohmann::ordered_json metrics_json(const ClassMetrics& metrics);

}  // namespace voca::model
