#pragma once

// Detection of forged videos: one label per video, two classes or K.

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/core/task.h"
#include "model/metrics/measure_table.h"
#include "model/metrics/metrics.h"
#include "model/metrics/threshold.h"

namespace voca::model {

/// Output (K): one logit, the log-odds of real, or a logit for each of K ≥ 2 classes.
inline constexpr const char* kLogits = "logits";
/// Target, int32: 1 real, 0 fake, or the class index; −1 unknown.
inline constexpr const char* kLabel = "label";

/// Measures of a split, for two classes or for K.
using Metrics = std::variant<BinaryMetrics, ClassMetrics>;

/// (n) 1 / (1 + e^−logit) for one-logit predictions; (n, K) softmax otherwise. Computed in double, without
/// overflow.
[[nodiscard]] std::vector<double> probabilities(const engine::Predictions& predictions);

/// All measures of `predictions`; the loss is the mean of their losses, if they have any. `threshold` is used
/// for the second set of decisions (two classes only). Throws DataError when a label is unknown or there are
/// no samples.
[[nodiscard]] Metrics measure(const engine::Predictions& predictions, double threshold = 0.5);

/// Decision threshold to store in a checkpoint; `validation` must be the validation split. Empty if only one
/// class occurs, and for K classes.
[[nodiscard]] std::optional<double> fit_threshold(const engine::Predictions& validation,
                                                  const ThresholdRule& rule);

class DetectionTask final : public engine::Task {
 public:
  /// `classes` is 1 for one logit, else K.
  explicit DetectionTask(std::int64_t classes, const ThresholdRule& threshold_by = {})
      : classes_(classes), threshold_by_(threshold_by) {}

  [[nodiscard]] const engine::Selection& selection(std::string_view name) const override;
  void check_selection(std::string_view name,
                       std::span<const engine::PredictionColumn> targets) const override;
  [[nodiscard]] std::vector<engine::MeasuredValue> validate(const engine::Predictions& val) const override;

 private:
  [[nodiscard]] const SelectingMeasure& row(std::string_view name) const;

  std::int64_t classes_;
  ThresholdRule threshold_by_;
};

}  // namespace voca::model
