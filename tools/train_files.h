#pragma once

#include "data/packed/dataset.h"
#include "engine/telemetry/run_folder.h"
#include "engine/trainer/trainer.h"
#include "tools/options/train_options.h"

namespace voca::tools {

/// Checks, before a rank is started, that the inputs exist and are readable; `of_rank_0`: also those that
/// only rank 0 reads. Throws IoError, UsageError.
void check_train_inputs(const TrainOptions& options, bool of_rank_0);

/// Checks the files of a run before any work. Refuses outputs that are inputs, of another kind, of another
/// run without --overwrite, or that could not be written hours from now; a --run_dir in the data; and a
/// --resume that is not a training state or is of another run. Messages say how to proceed. A run folder is
/// continued or discarded, never mixed with another run. An existing checkpoint belongs to this run if its
/// options are `now`. Creates the folders of the outputs. Throws UsageError, IoError.
void check_train_files(const TrainOptions& options, const RunPaths& paths, const RunValues& now);

/// Prepares a run folder: a run in it is continued or discarded, never mixed with another one. Only files of
/// a run are removed. Throws UsageError naming --run_dir, DataError if the run was started with other data.
void prepare_run_folder(const engine::RunFolder& folder, const TrainOptions& options, const RunPaths& paths,
                        const data::Dataset& dataset);

/// Sets the trainer's parameters: resumed, initialised, or read from --init_from. `dataset` is the one to
/// train on. Throws UsageError, DataError.
void start_weights(engine::Trainer& trainer, const TrainOptions& options, const RunPaths& paths,
                   const data::Dataset& dataset, engine::TrainingObserver& observer);

}  // namespace voca::tools
