#pragma once

#include <span>
#include <string>
#include <vector>

#include "data/packed/dataset.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
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

/// Whether --resume has a state to continue from.
[[nodiscard]] bool continues_a_run(const TrainOptions& options, const RunPaths& paths);

/// Why the checkpoint at `path` is not the one that this run has written, of `epoch` if given; empty if it
/// is. `now` are the run's options.
[[nodiscard]] std::string why_not_kept(const std::filesystem::path& path, std::optional<std::int64_t> epoch,
                                       const RunValues& now);

/// Reads what --init_from names for a new run of `network`, and what is wrong with it is thrown (DataError,
/// UsageError, IoError) before anything of an earlier run is removed. Empty without --init_from.
[[nodiscard]] std::vector<engine::NamedTensor> read_initial_weights(const TrainOptions& options,
                                                                    const data::Dataset& dataset,
                                                                    const engine::Model& network);

/// A run that is continued began with the --init_from in its own record, not with this command's: puts the
/// recorded one into `values`. Returns a note if this command names another; empty if there is none.
[[nodiscard]] std::string keep_recorded_origin(const TrainOptions& options, const RunPaths& paths,
                                               const OptionSet& set, nlohmann::ordered_json& values);

/// Sets the trainer's parameters: resumed, or initialised and overwritten by `initial`, which may be empty.
/// Throws UsageError, DataError.
void start_weights(engine::Trainer& trainer, const TrainOptions& options, const RunPaths& paths,
                   std::span<const engine::NamedTensor> initial, engine::TrainingObserver& observer);

}  // namespace voca::tools
