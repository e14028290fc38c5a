#pragma once

#include <string>
#include <vector>

#include "data/packed/dataset.h"
#include "tools/options/train_options.h"

namespace voca::tools {

/// Effects of the options and the data that a user may not expect, one line each; printed once, before the
/// first step.
[[nodiscard]] std::vector<std::string> notes_on_run(const TrainOptions& options, const data::Dataset& dataset,
                                                    int world_size);

/// Throws UsageError naming --use_contrastive if InfoNCE has a single pair: no negatives, hence no gradient.
void check_contrastive_batch(const TrainOptions& options, const data::Dataset& dataset, int world_size);

/// Why the kept checkpoint is not evaluated on the test split: "the test split is empty"; "" if it is.
[[nodiscard]] std::string why_untested(const data::Dataset& dataset);

}  // namespace voca::tools
