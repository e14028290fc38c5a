#include "tools/train_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "engine/base/path_status.h"
#include "engine/checkpoint/resume/resume_state.h"
#include "engine/checkpoint/torch/pt_file.h"
#include "tools/checkpoint_path.h"
#include "tools/output_file.h"
#include "tools/recorded_run.h"
#include "tools/trained_model.h"

namespace voca::tools {
namespace {

namespace fs = std::filesystem;
using engine::UsageError;
using nlohmann::ordered_json;

/// Whether this program trained a checkpoint with the same numeric options. It is then this run's, or one
/// with the same numbers, wherever it is stored.
bool is_of_run(const fs::path& path, const RunValues& now) {
  if (engine::path_kind(path) != engine::PathKind::kFile) return false;
  try {
    const engine::LoadedCheckpoint found = engine::read_training_checkpoint(path);
    const RunValues before{found.config, found.engine.value("world_size", 1)};
    return trained_here(found) && !first_difference(now, before);
  } catch (const engine::DataError&) {
    return false;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

std::optional<std::int64_t> epoch_of(const engine::PtFile& file) {
  const engine::Value* epoch = file.value.find("epoch");
  if (epoch == nullptr || epoch->if_int() == nullptr) return std::nullopt;
  return *epoch->if_int();
}

bool is_run_folder(const fs::path& path) {
  return engine::is_folder(path) && (engine::is_folder(engine::RunFolder::checkpoint_folder(path)) ||
                                     engine::is_there(engine::RunFolder::config_path(path)));
}

/// Throws unless --resume PATH is a state or a folder of states; messages cover what people try instead.
void check_resume_source(const TrainOptions& options) {
  if (options.resume.path.empty()) return;
  const fs::path path = options.resume.path;
  if (!engine::is_there(path)) {
    throw engine::IoError("--resume {}: no such file or folder; auto continues the run of --run_dir",
                          path.string());
  }
  if (is_run_folder(path)) {
    throw UsageError("--resume {0}: is a run folder; continue its run with --run_dir {0} --resume auto",
                     path.string());
  }
  if (engine::is_folder(path) || !is_of_kind(path, OutputKind::kCheckpoint)) return;
  throw UsageError(
      "--resume {0}: is a checkpoint, not a training state; continue a run with --run_dir DIR --resume auto, "
      "or start a new one from these weights with --init_from {0}",
      path.string());
}

/// Run folder of a --resume PATH, which is its folder of states or one of the states.
fs::path run_of_states(const fs::path& path) {
  fs::path states = fs::absolute(path).lexically_normal();
  if (!states.has_filename()) states = states.parent_path();  // a trailing slash: "checkpoints/"
  return engine::is_folder(path) ? states.parent_path() : states.parent_path().parent_path();
}

bool holds_a_run(const fs::path& run_dir) {
  return engine::RunFolder::has_metrics(run_dir) ||
         engine::has_resume_states(engine::RunFolder::checkpoint_folder(run_dir));
}

/// The run folder that --resume continues, and whether it has a state to continue from.
struct Resumed {
  fs::path run_dir;
  bool has_states = false;
};

Resumed resumed_run(const TrainOptions& options, const RunPaths& paths) {
  if (!options.resume.requested()) return {};
  if (!options.resume.latest) return {run_of_states(options.resume.path), true};
  return {paths.run_dir, engine::has_resume_states(engine::RunFolder::checkpoint_folder(paths.run_dir))};
}

std::vector<OutputFile> outputs_of(const TrainOptions& options, const RunPaths& paths) {
  std::vector<OutputFile> outputs;
  if (!options.trainer.no_val || options.save_last.empty())
    outputs.push_back({"--save_path", paths.save_path, OutputKind::kCheckpoint});
  if (!options.save_last.empty())
    outputs.push_back({"--save_last", options.save_last, OutputKind::kCheckpoint});
  return outputs;
}

/// Throws UsageError if the run in `run_dir` was started with other options.
void check_same_options(const fs::path& run_dir, const TrainOptions& options, const RunValues& now) {
  const ordered_json config = recorded_config(run_dir);
  if (config.is_null()) return;
  const std::optional<Difference> difference =
      first_difference(now, {config["options"], config.value("world_size", 1)});
  if (!difference) return;
  std::string advice;
  if (difference->origin != OptionSet::Origin::kCommandLine)
    advice = fmt::format(", which --config {} gives", engine::RunFolder::config_path(run_dir).string());
  if (difference->option == now.set->name(options.trainer.epochs))
    advice += ", and a finished one trained further with --extend_epochs";
  throw UsageError(
      "--resume {}: {} in the run of {}; a run is continued with the options it was started with{}",
      options.resume.text(), difference->text, run_dir.string(), advice);
}

/// Throws DataError if the run in `run_dir` was started with other data.
void check_same_data(const fs::path& run_dir, const std::string& resume, const data::Dataset& dataset) {
  const ordered_json config = recorded_config(run_dir);
  if (config.is_null()) return;
  const ordered_json data = config.value("data", ordered_json::object());
  const ordered_json hash = data.value("content_hash", ordered_json());
  if (!hash.is_string() || hash == dataset.content_hash()) return;
  throw engine::DataError(
      "--resume {}: {} holds other videos, labels or splits than the run of {} was started with; a run is "
      "continued with its data",
      resume, dataset.path().string(), run_dir.string());
}

/// Progress of a run according to metrics.jsonl.
struct Recorded {
  std::int64_t epochs = 0;
  std::int64_t steps = 0;
  bool tested = false;
};

Recorded read_records(const fs::path& metrics) {
  Recorded result;
  engine::visit_metrics(metrics, [&](const ordered_json& record, std::string_view /*line*/) {
    const ordered_json& kind = record["kind"];
    result.tested |= kind == "test";
    if (kind == "epoch") result.epochs = record["epoch"].get<std::int64_t>();
    result.steps = record["step"].get<std::int64_t>();
  });
  return result;
}

/// Whether a run without a state must have saved one. Such a run is not restarted over its records by the
/// command that was to resume it. A run that was killed before its first state is restarted.
bool lost_its_states(const fs::path& run_dir) {
  const fs::path metrics = engine::RunFolder::metrics_path(run_dir);
  if (!engine::is_there(metrics)) return false;
  if (engine::is_there(engine::RunFolder::checkpoint_folder(run_dir) / engine::kStatePointer)) return true;
  const Recorded recorded = read_records(metrics);
  if (recorded.tested) return true;
  const ordered_json config = recorded_config(run_dir);
  if (config.is_null()) return recorded.epochs > 1;
  TrainArguments arguments;
  const engine::Interval& every = arguments.options.trainer.checkpoint_every;
  if (!arguments.set.read_back(config["options"], every)) return false;
  return every.count > 0 && (every.in_steps ? recorded.steps : recorded.epochs) > every.count;
}

/// Whether a checkpoint is the best one that the trainer knows of, or from an epoch that it will train again.
/// In the latter case the run was killed between its best checkpoint and the state after it.
bool is_best_of(const fs::path& path, const engine::Trainer& trainer) {
  if (path.extension() == ".safetensors") return true;  // it does not record the epoch
  const engine::PtFile file = engine::read_pt(path);
  const std::optional<std::int64_t> epoch = epoch_of(file);
  if (!epoch) return false;
  if (*epoch > trainer.epochs_done()) return true;
  const engine::ValidationSummary& best = *trainer.best();
  const engine::Value* auc = file.value.find("val_auc");
  const bool has_auc = auc != nullptr && auc->if_double() != nullptr;
  return *epoch == best.epoch && has_auc == best.measure("auc").has_value() &&
         (!has_auc || *auc->if_double() == *best.measure("auc"));
}

/// A state has only the last weights, so the best checkpoint must exist at --save_path. If it is missing and
/// epochs remain, the best of these is selected; a finished run has none left to select from.
void check_best_is_there(engine::Trainer& trainer, const RunPaths& paths,
                         engine::TrainingObserver& observer) {
  const std::optional<engine::ValidationSummary>& best = trainer.best();
  if (!best) return;
  const std::string path = paths.save_path.string();
  if (engine::is_there(paths.save_path)) {
    if (is_best_of(paths.save_path, trainer)) return;
    throw UsageError(
        "--save_path {}: is not the best checkpoint of this run so far, which is of epoch {}; put that one "
        "there, or give another name",
        path, best->epoch);
  }
  if (trainer.finished()) {
    throw engine::IoError(
        "--save_path {}: the best checkpoint of this finished run, of epoch {}, is not there; copy it there, "
        "name the file that it is in, or train further with --extend_epochs",
        path, best->epoch);
  }
  observer.on_message(fmt::format(
      "warning: {}: the best checkpoint so far, of epoch {}, is not there; the best of the epochs to "
      "come will be kept",
      path, best->epoch));
  trainer.forget_best();
}

/// Removes an earlier run's TensorBoard events: two runs in one folder are drawn as one curve.
void remove_events(const fs::path& run_dir) {
  std::error_code error;
  std::vector<fs::path> events;
  for (fs::directory_iterator entry(run_dir, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename().string().starts_with("events.out.tfevents."))
      events.push_back(entry->path());
  }
  for (const fs::path& file : events) fs::remove(file, error);
}

/// Whether `path` is `folder` or lies in it; neither needs to exist.
bool lies_in(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  const fs::path within = fs::weakly_canonical(path, error);
  const fs::path whole = fs::weakly_canonical(folder, error);
  const auto [end, rest] = std::mismatch(whole.begin(), whole.end(), within.begin(), within.end());
  return end == whole.end() || (std::next(end) == whole.end() && end->empty());
}

}  // namespace

void check_train_inputs(const TrainOptions& options, bool of_rank_0) {
  check_readable("--features_root", options.features_root);
  if (!of_rank_0) return;
  check_resume_source(options);
  if (!options.init_from.empty() && !continues_a_run(options, run_paths(options)))
    check_readable("--init_from", options.init_from);
}

void check_train_files(const TrainOptions& options, const RunPaths& paths, const RunValues& now) {
  check_resume_source(options);
  const Resumed resumed = resumed_run(options, paths);
  if (options.resume.latest && !resumed.has_states && lost_its_states(paths.run_dir)) {
    throw UsageError(
        "--resume auto: {} holds a run whose training states are gone, so it cannot be continued; discard it "
        "with --overwrite, or start another in a --run_dir of its own (--init_from takes its checkpoint)",
        paths.run_dir.string());
  }
  if (options.resume.requested()) check_same_options(resumed.run_dir, options, now);
  if (!options.resume.requested() && !options.overwrite && holds_a_run(paths.run_dir)) {
    throw UsageError(
        "--run_dir {}: holds a run already; continue it with --resume auto, discard it with --overwrite, or "
        "name another folder",
        paths.run_dir.string());
  }
  if (engine::is_folder(options.features_root) && lies_in(paths.run_dir, options.features_root)) {
    throw UsageError("--run_dir {}: lies in the feature tree {}; name a folder outside it",
                     paths.run_dir.string(), options.features_root);
  }
  check_output_folder("--run_dir", paths.run_dir);
  std::vector<InputFile> inputs{{"--features_root", options.features_root}};
  if (!options.init_from.empty()) inputs.push_back({"--init_from", checkpoint_path(options.init_from)});
  if (!options.resume.path.empty()) inputs.push_back({"--resume", options.resume.path});
  inputs.push_back({"--run_dir", paths.run_dir});
  for (const char* name : {"config.json", "metrics.jsonl"})
    inputs.push_back({"a record of --run_dir", paths.run_dir / name});
  const bool goes_on =
      options.resume.requested() && (resumed.has_states || !recorded_config(paths.run_dir).is_null());
  for (const OutputFile& output : outputs_of(options, paths)) {
    if (lies_in(output.path, engine::RunFolder::checkpoint_folder(paths.run_dir))) {
      throw UsageError("{} {}: lies in the folder of the resume states; name a file outside it",
                       output.option, output.path.string());
    }
    make_folder_of(output);
    Existing existing = options.overwrite ? Existing::kReplace : Existing::kAskFor;
    if (options.resume.requested()) {
      const bool own = goes_on && is_of_run(output.path, now);
      existing = own ? Existing::kReplace : Existing::kBelongsToAnother;
    }
    check_output(output, inputs, existing);
    inputs.push_back({output.option, output.path});  // no two outputs may be one file
  }
}

void prepare_run_folder(const engine::RunFolder& folder, const TrainOptions& options, const RunPaths& paths,
                        const data::Dataset& dataset) {
  const std::string path = folder.path().string();
  if (engine::is_there(engine::RunFolder::config_path(folder.path())) &&
      recorded_config(folder.path()).is_null()) {
    throw UsageError("--run_dir {}: its config.json is not of a training; name another folder", path);
  }
  if (options.resume.requested())
    return check_same_data(resumed_run(options, paths).run_dir, options.resume.text(), dataset);
  if (!holds_a_run(folder.path())) return;
  engine::ResumeStore(engine::RunFolder::checkpoint_folder(folder.path())).clear();
  remove_events(folder.path());
}

bool continues_a_run(const TrainOptions& options, const RunPaths& paths) {
  return resumed_run(options, paths).has_states;
}

std::string why_not_kept(const fs::path& path, std::optional<std::int64_t> epoch, const RunValues& now) {
  if (path.extension() == ".safetensors") return {};  // weights alone
  if (is_of_run(path, now) && (!epoch || epoch_of(engine::read_pt(path)) == epoch)) return {};
  return fmt::format(
      "{}: another training has written it since this one did; give each a --save_path of its own",
      path.string());
}

std::vector<engine::NamedTensor> read_initial_weights(const TrainOptions& options,
                                                      const data::Dataset& dataset,
                                                      const engine::Model& network) {
  if (options.init_from.empty()) return {};
  return read_initial_weights(
      checkpoint_path(options.init_from), options.weights,
      model_config(options, dataset.dim(data::Stream::kVisual), dataset.dim(data::Stream::kAudio)),
      dataset.path().string(), network);
}

std::string keep_recorded_origin(const TrainOptions& options, const RunPaths& paths, const OptionSet& set,
                                 ordered_json& values) {
  const Resumed resumed = resumed_run(options, paths);
  if (!resumed.has_states) return {};
  const ordered_json config = recorded_config(resumed.run_dir);
  if (config.is_null()) return {};
  const std::string init_from = set.name(options.init_from);
  const std::string weights = set.name(options.weights);
  for (const std::string& name : {init_from, weights})
    values[name] = config["options"].value(name, ordered_json(""));
  if (options.init_from.empty() || values[init_from] == options.init_from) return {};
  return fmt::format("note: --{} {}: not read, the run of {} is continued from its own state", init_from,
                     options.init_from, resumed.run_dir.string());
}

void start_weights(engine::Trainer& trainer, const TrainOptions& options, const RunPaths& paths,
                   std::span<const engine::NamedTensor> initial, engine::TrainingObserver& observer) {
  if (options.resume.latest && trainer.resume_latest()) return check_best_is_there(trainer, paths, observer);
  if (!options.resume.path.empty()) {
    trainer.resume_from(options.resume.path);
    return check_best_is_there(trainer, paths, observer);
  }
  if (options.trainer.extend_epochs > 0) {
    throw UsageError(
        "--extend_epochs {}: there is no run in {} to extend; train it first, without the option",
        options.trainer.extend_epochs, paths.run_dir.string());
  }
  trainer.parameters().initialise(options.trainer.seed);
  if (!initial.empty()) load_weights(checkpoint_path(options.init_from), initial, trainer.parameters());
}

}  // namespace voca::tools
