#include "tools/train_files.h"

#include <fmt/format.h>

#include <optional>

#include <vector>

#include "engine/checkpoint/pt_file.h"
#include "engine/checkpoint/resume_state.h"
#include "engine/error.h"
#include "tools/checkpoint_path.h"
#include "tools/output_file.h"
#include "tools/recorded_run.h"
#include "tools/trained_model.h"

namespace voca::tools {
namespace {

namespace fs = std::filesystem;
using engine::UsageError;
using nlohmann::ordered_json;

/// Whether the run of this folder wrote `path`, by the options that its config.json records.
bool is_of_run(const RunPaths& paths, const fs::path& path) {
  const ordered_json config = recorded_config(paths.run_dir);
  if (config.is_null()) return false;
  const ordered_json& options = config["options"];
  for (const char* name : {"save_path", "save_last"}) {
    const ordered_json value = options.value(name, ordered_json());
    if (value.is_string() && !value.get_ref<const std::string&>().empty() &&
        same_file(value.get<std::string>(), path))
      return true;
  }
  const ordered_json save_path = options.value("save_path", ordered_json());
  return save_path == "" && same_file(paths.run_dir / kDefaultCheckpoint, path);
}

bool is_run_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error) &&
         (fs::is_directory(engine::RunFolder::checkpoint_folder_of(path), error) ||
          fs::exists(engine::RunFolder::config_path_of(path), error));
}

/// --resume PATH is a state or a folder of states; what people try beside it is answered.
void check_resume_source(const TrainOptions& options) {
  if (options.resume.empty() || options.resume == "auto") return;
  const fs::path path = options.resume;
  std::error_code error;
  if (!fs::exists(path, error)) {
    throw engine::IoError("--resume {}: no such file or folder; auto continues the run of --run_dir",
                          path.string());
  }
  if (is_run_folder(path)) {
    throw UsageError("--resume {0}: is a run folder; continue its run with --run_dir {0} --resume auto",
                     path.string());
  }
  if (fs::is_directory(path, error) || !is_of_kind(path, OutputKind::kCheckpoint)) return;
  throw UsageError(
      "--resume {0}: is a checkpoint, not a training state; continue a run with --run_dir DIR --resume auto, "
      "or "
      "start a new one from these weights with --init_from {0}",
      path.string());
}

std::vector<OutputFile> outputs_of(const TrainOptions& options, const RunPaths& paths) {
  std::vector<OutputFile> outputs;
  if (!options.no_val || options.save_last.empty())
    outputs.push_back({"--save_path", paths.save_path, OutputKind::kCheckpoint});
  if (!options.save_last.empty())
    outputs.push_back({"--save_last", options.save_last, OutputKind::kCheckpoint});
  return outputs;
}

/// Refuses options that the run of `run_dir` was not started with.
void check_same_options(const fs::path& run_dir, const std::string& resume, const RunValues& now) {
  const ordered_json config = recorded_config(run_dir);
  if (config.is_null()) return;
  const std::string difference = first_difference(now, {config["options"], config.value("world_size", 1)});
  if (difference.empty()) return;
  const bool longer = difference.starts_with("--epochs ");
  throw UsageError(
      "--resume {}: {} in the run of {}; a run is continued with the options it was started with{}", resume,
      difference, run_dir.string(),
      longer ? ", and a finished one trained further with --extend_epochs" : "");
}

/// The run folder that a --resume PATH lies in: of its folder of states, or of one of them.
fs::path run_of_states(const fs::path& path) {
  const fs::path states = fs::is_directory(path) ? path : fs::absolute(path).parent_path();
  return fs::absolute(states).lexically_normal().parent_path();
}

/// Whether a .pt says that it is of this epoch and has its AUC on val.
bool is_checkpoint_of(const fs::path& path, const engine::ValidationSummary& summary) {
  if (path.extension() == ".safetensors") return false;
  const engine::PtFile file = engine::read_pt(path);
  const engine::Dict* root = file.value.if_dict();
  const auto entry = [&](const char* key) { return root == nullptr ? nullptr : root->find(key); };
  const engine::Value* epoch = entry("epoch");
  const engine::Value* auc = entry("val_auc");
  if (epoch == nullptr || epoch->if_int() == nullptr || *epoch->if_int() != summary.epoch) return false;
  if (!summary.auc) return auc == nullptr || auc->is_none();
  return auc != nullptr && auc->if_double() != nullptr && *auc->if_double() == *summary.auc;
}

/// A state has the last weights only: a best checkpoint that is gone would be missed when training ends, and
/// another one in its place is not this run's to replace.
void check_best_is_there(const engine::Trainer& trainer, const RunPaths& paths) {
  const std::optional<engine::ValidationSummary>& best = trainer.best();
  const std::string path = paths.save_path.string();
  if (best && !fs::exists(paths.save_path)) {
    throw engine::IoError(
        "--save_path {}: the best checkpoint of the run so far, of epoch {}, is not there; copy it there, or "
        "name "
        "the file that it is in",
        path, best->epoch);
  }
  if (!fs::exists(paths.save_path) || is_of_run(paths, paths.save_path)) return;
  if (best && is_checkpoint_of(paths.save_path, *best)) return;
  throw UsageError("--save_path {}: exists and is not the best checkpoint of this run; give another name",
                   path);
}

}  // namespace

void check_train_files(const TrainOptions& options, const RunPaths& paths) {
  check_resume_source(options);
  check_output_folder("--run_dir", paths.run_dir);
  const std::vector<OutputFile> outputs = outputs_of(options, paths);
  std::vector<InputFile> inputs{{"--features_root", options.features_root}};
  if (!options.init_from.empty()) inputs.push_back({"--init_from", checkpoint_path(options.init_from)});
  const bool goes_on_elsewhere = !options.resume.empty() && options.resume != "auto";
  if (goes_on_elsewhere) inputs.push_back({"--resume", options.resume});
  for (const char* name : {"config.json", "metrics.jsonl"})
    inputs.push_back({"a record of --run_dir", paths.run_dir / name});
  for (const OutputFile& output : outputs) {
    make_folder_of(output);
    const Existing otherwise = options.resume.empty() ? Existing::kAskFor : Existing::kBelongsToAnother;
    // Where a run goes on elsewhere, its best checkpoint may have been copied there: check_best_is_there().
    const bool may_replace = options.overwrite || is_of_run(paths, output.path) ||
                             (goes_on_elsewhere && output.option == "--save_path");
    check_output(output, inputs, may_replace ? Existing::kReplace : otherwise);
    inputs.push_back({output.option, output.path});  // the next one must not be this one
  }
}

void prepare_run_folder(const engine::RunFolder& folder, const TrainOptions& options,
                        const ordered_json& values, int world_size) {
  const std::string path = folder.path().string();
  if (fs::exists(folder.config_path()) && recorded_config(folder.path()).is_null()) {
    throw UsageError("--run_dir {}: its config.json is not of a training; name another folder", path);
  }
  if (!options.resume.empty() && options.resume != "auto")
    check_same_options(run_of_states(options.resume), options.resume, {values, world_size});
  if (!engine::has_resume_states(folder.checkpoint_folder()) && !folder.has_metrics()) return;
  if (options.resume.empty() && options.overwrite) {
    engine::ResumeStore(folder.checkpoint_folder()).clear();
    return;
  }
  if (options.resume.empty()) {
    throw UsageError(
        "--run_dir {}: holds a run already; continue it with --resume auto, discard it with --overwrite, or "
        "name another folder",
        path);
  }
  if (options.resume == "auto" && engine::has_resume_states(folder.checkpoint_folder()))
    check_same_options(folder.path(), options.resume, {values, world_size});
}

void start_weights(engine::Trainer& trainer, const TrainOptions& options, const RunPaths& paths,
                   const data::Dataset& dataset) {
  if (options.resume == "auto" && trainer.resume_latest()) return check_best_is_there(trainer, paths);
  if (!options.resume.empty() && options.resume != "auto") {
    trainer.resume_from(options.resume);
    return check_best_is_there(trainer, paths);
  }
  if (options.extend_epochs > 0) {
    throw UsageError(
        "--extend_epochs {}: there is no run in {} to extend; train it first, without the option",
        options.extend_epochs, paths.run_dir.string());
  }
  trainer.parameters().initialise(options.seed);
  if (!options.init_from.empty()) {
    load_initial_weights(
        checkpoint_path(options.init_from), options.weights,
        model_config(options, dataset.dim(data::Stream::kVisual), dataset.dim(data::Stream::kAudio)),
        dataset.path().string(), trainer.parameters());
  }
}

}  // namespace voca::tools
