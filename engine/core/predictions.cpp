#include "engine/core/predictions.h"

#include <algorithm>
#include <functional>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

std::int64_t numbers_per_sample(const Predictions& predictions) {
  std::int64_t numbers = 0;
  for (const PredictionColumn& column : predictions.outputs) numbers += column.width;
  return numbers;
}

bool same_outputs(const Predictions& one, const Predictions& other) {
  return std::equal(one.outputs.begin(), one.outputs.end(), other.outputs.begin(), other.outputs.end(),
                    [](const PredictionColumn& a, const PredictionColumn& b) {
                      return a.name == b.name && a.width == b.width;
                    });
}

}  // namespace

const PredictionColumn& column(std::span<const PredictionColumn> columns, std::string_view name) {
  const auto found =
      std::find_if(columns.begin(), columns.end(), [&](const auto& one) { return one.name == name; });
  if (found == columns.end()) throw InternalError("predictions: there is no column \"{}\"", name);
  return *found;
}

Predictions mean_outputs(const std::vector<Predictions>& predictions) {
  VOCA_CHECK(!predictions.empty());
  Predictions mean = predictions.front();
  mean.losses.clear();
  for (std::size_t i = 1; i < predictions.size(); ++i) {
    const Predictions& other = predictions[i];
    if (!same_outputs(mean, other) || other.samples != mean.samples) {
      throw DataError(
          "ensemble: checkpoint 1 predicts {} samples of {} numbers, checkpoint {} {} of {}; they must be of "
          "the same samples and classes",
          mean.size(), numbers_per_sample(mean), i + 1, other.size(), numbers_per_sample(other));
    }
    for (std::size_t c = 0; c < mean.outputs.size(); ++c) {
      std::vector<double>& values = mean.outputs[c].values;
      std::transform(values.begin(), values.end(), other.outputs[c].values.begin(), values.begin(),
                     std::plus<>());
    }
  }
  for (PredictionColumn& column : mean.outputs)
    for (double& value : column.values) value /= static_cast<double>(predictions.size());
  return mean;
}

}  // namespace voca::engine
