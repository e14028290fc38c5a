#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "data/packed/dataset.h"
#include "tools/trained_model.h"

namespace voca::tools {

/// The object that `eval --json` prints: `split`, the metrics of the split (model::metrics_json), the
/// threshold's origin, the number of damaged samples, the checkpoint and the dataset's hashes. The decision
/// threshold is the checkpoint's, or 0.5 if it has none. Throws DataError if the split is empty or has videos
/// without a label.
[[nodiscard]] nlohmann::ordered_json evaluate(const TrainedNetwork& network,
                                              const std::shared_ptr<const data::Dataset>& dataset,
                                              data::Split split, PredictionOptions options,
                                              engine::Device& device);

/// Formats `evaluation` for people, wrapped to `columns`: the metrics, then for each threshold a table of the
/// classes and the confusion matrix, one row per label.
[[nodiscard]] std::string evaluation_text(const nlohmann::ordered_json& evaluation, int columns);

}  // namespace voca::tools
