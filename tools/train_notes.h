#pragma once

#include <string>
#include <vector>

#include "data/packed/dataset.h"
#include "tools/options/train_options.h"

namespace voca::tools {

/// One line for each thing that the options and the data make of a run and that a person may not expect: said
/// once, before the first step.
[[nodiscard]] std::vector<std::string> notes_on_run(const TrainOptions& options, const data::Dataset& dataset,
                                                    int world_size);

/// Throws UsageError naming --use_contrastive when InfoNCE has one pair to compare: no negatives, no
/// gradient.
void check_contrastive_batch(const TrainOptions& options, const data::Dataset& dataset, int world_size);

/// Why the kept checkpoint is not measured on the test split, "the test split is empty"; "" where it is.
[[nodiscard]] std::string why_untested(const data::Dataset& dataset);

}  // namespace voca::tools
