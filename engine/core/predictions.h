#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace voca::engine {

/// One of a model's outputs or targets for many samples, on the host.
struct PredictionColumn {
  std::string name;
  std::int64_t width = 1;      ///< numbers per sample
  std::vector<double> values;  ///< (n, width)
};

/// The column of this name. Throws InternalError if there is none.
[[nodiscard]] const PredictionColumn& column(std::span<const PredictionColumn> columns,
                                             std::string_view name);

/// What a model predicts for a split, and what it should: every sample once, in the order of the dataset.
struct Predictions {
  std::vector<std::int64_t> samples;  ///< (n) index in the dataset, ascending
  std::vector<PredictionColumn> outputs;
  std::vector<PredictionColumn> targets;
  std::vector<double> losses;  ///< (n) loss of each sample; empty if not requested

  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(samples.size()); }
  [[nodiscard]] const PredictionColumn& output(std::string_view name) const { return column(outputs, name); }
  [[nodiscard]] const PredictionColumn& target(std::string_view name) const { return column(targets, name); }
};

/// Means of several models' outputs over the same samples; targets are kept, losses are dropped. Throws
/// DataError when samples or outputs differ.
[[nodiscard]] Predictions mean_outputs(const std::vector<Predictions>& predictions);

}  // namespace voca::engine
