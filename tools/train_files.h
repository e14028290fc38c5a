#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/dataset.h"
#include "engine/run_folder.h"
#include "engine/trainer/trainer.h"
#include "tools/train_options.h"

namespace voca::tools {

/// Before any work: refuses outputs that are inputs, of another kind, of another run without --overwrite, or
/// that cannot be written hours from now, and a --resume that is no training state, naming the way forward.
/// Makes the folders of the outputs. Throws UsageError, IoError.
void check_train_files(const TrainOptions& options, const RunPaths& paths);

/// A folder with a run in it is continued or discarded, never mixed with another one; of what is there only
/// the files of a run are removed. `values` are OptionSet::values. Throws UsageError naming --run_dir or the
/// option that differs.
void prepare_run_folder(const engine::RunFolder& folder, const TrainOptions& options,
                        const nlohmann::ordered_json& values, int world_size);

/// Fills the trainer's parameters: continued, initialised, or read from --init_from; `dataset` is what it
/// trains on. Throws UsageError, DataError.
void start_weights(engine::Trainer& trainer, const TrainOptions& options, const RunPaths& paths,
                   const data::Dataset& dataset);

}  // namespace voca::tools
