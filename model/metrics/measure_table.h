#pragma once

// The measures of an evaluation, one row each. The text and JSON of eval, metrics.jsonl, TensorBoard,
// --select_by, resume states and the list in docs/evaluation.md are derived from these rows or compared with
// them by a test.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/task.h"
#include "model/metrics/metrics.h"

namespace voca::model {

using engine::Better;

template <typename Metrics>
struct Measure {
  std::string_view name;         ///< key in the JSON of eval
  std::string_view label{};      ///< in the text of eval; empty: not in its list of measures
  std::string_view record{};     ///< key in metrics.jsonl and TensorBoard; empty: not recorded
  std::string_view select_by{};  ///< value of --select_by; empty: cannot select checkpoints
  Better better = Better::kHigher;
  bool needs_two_classes = false;  ///< undefined on a split with samples of one class only
  std::optional<double> (*value)(const Metrics& metrics);
};

/// Rows for two classes and for K classes, in the order of the text.
[[nodiscard]] std::span<const Measure<BinaryMetrics>> measures_of(const BinaryMetrics& metrics);
[[nodiscard]] std::span<const Measure<ClassMetrics>> measures_of(const ClassMetrics& metrics);

/// What --select_by may name.
struct SelectingMeasure : engine::Selection {
  bool needs_two_classes = false;
  bool is_of_classes = false;  ///< also defined for a model of K ≥ 2 outputs
};
[[nodiscard]] const std::vector<SelectingMeasure>& selections();
/// Throws UsageError naming --select_by if no row has this name.
[[nodiscard]] const SelectingMeasure& selection(std::string_view name);
/// Names of selections().
[[nodiscard]] std::vector<std::string_view> selection_names();

}  // namespace voca::model
