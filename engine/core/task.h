#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/core/predictions.h"

namespace voca::engine {

enum class Better : std::uint8_t { kHigher, kLower };

/// A measure by which checkpoints can be selected.
struct Selection {
  std::string_view name;  ///< value of --select_by
  Better better = Better::kHigher;
};

/// A number found on the validation split.
struct MeasuredValue {
  std::string_view name;        ///< under which checkpoints and resume states keep it; empty: not kept
  std::string_view record;      ///< key in metrics.jsonl and TensorBoard; empty: not recorded
  std::optional<double> value;  ///< empty: undefined on this split
};

/// What a model is trained for: turns predictions into measures and says which of them select checkpoints.
class Task {
 public:
  Task() = default;
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  virtual ~Task() = default;

  /// Throws UsageError naming --select_by if no measure of this task has this name.
  [[nodiscard]] virtual const Selection& selection(std::string_view name) const = 0;
  /// Like selection(), and throws if the measure is undefined on a validation split with these targets. To be
  /// called before the first step: training sees no targets before the first evaluation, and if the measure
  /// is undefined then, it is only reported.
  virtual void check_selection(std::string_view name, std::span<const PredictionColumn> targets) const = 0;
  /// Measures of the validation split, in the order of records, with what is fitted on it. Throws DataError
  /// when a target is unknown or there are no samples.
  [[nodiscard]] virtual std::vector<MeasuredValue> validate(const Predictions& val) const = 0;
};

}  // namespace voca::engine
