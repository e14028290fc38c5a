#pragma once

#include "data/packed/dataset.h"
#include "engine/telemetry/run_folder.h"
#include "engine/trainer/trainer.h"
#include "tools/options/train_options.h"

namespace voca::tools {

/// Before a rank is started: whether what is to be read can be, as far as its name tells. `of_rank_0`: with
/// what rank 0 alone reads. Throws IoError, UsageError.
void check_train_inputs(const TrainOptions& options, bool of_rank_0);

/// Before any work: refuses outputs that are inputs, of another kind, of another run without --overwrite, or
/// that cannot be written hours from now, a --run_dir in the data, a --resume that is no training state or of
/// another run, naming the way forward. A folder with a run in it is continued or discarded, never mixed with
/// another one. A checkpoint that is there is this run's if its options are `now`.
/// Makes the folders of the outputs. Throws UsageError, IoError.
void check_train_files(const TrainOptions& options, const RunPaths& paths, const RunValues& now);

/// A folder with a run in it is continued or discarded, never mixed with another one; of what is there only
/// the files of a run are removed. Throws UsageError naming --run_dir, DataError when the run was started
/// with other data.
void prepare_run_folder(const engine::RunFolder& folder, const TrainOptions& options, const RunPaths& paths,
                        const data::Dataset& dataset);

/// Fills the trainer's parameters: continued, initialised, or read from --init_from; `dataset` is what it
/// trains on. Throws UsageError, DataError.
void start_weights(engine::Trainer& trainer, const TrainOptions& options, const RunPaths& paths,
                   const data::Dataset& dataset, engine::TrainingObserver& observer);

}  // namespace voca::tools
