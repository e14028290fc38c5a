#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "data/packed/dataset.h"
#include "tools/trained_model.h"

namespace voca::tools {

/// Everything `eval --json` prints: the measures of one split (engine::metrics_json) behind `split`, with
/// the checkpoint, the threshold's origin, the dataset's hashes and what follows from them. The decision
/// threshold is the one that the checkpoint carries, 0.5 otherwise. Throws DataError when the split is empty
/// or has videos without a label.
[[nodiscard]] nlohmann::ordered_json evaluate(const TrainedNetwork& network,
                                              const std::shared_ptr<const data::Dataset>& dataset,
                                              data::Split split, PredictionOptions options,
                                              engine::Device& device);

/// The same for people, laid out for so many columns: the measures, then for each threshold a table of the
/// classes and the confusion matrix, a row for each label.
[[nodiscard]] std::string evaluation_text(const nlohmann::ordered_json& evaluation, int columns);

}  // namespace voca::tools
