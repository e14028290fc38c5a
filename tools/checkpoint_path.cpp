#include "tools/checkpoint_path.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/path_status.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "tools/options/train_options.h"
#include "tools/recorded_run.h"

namespace voca::tools {
namespace {

namespace fs = std::filesystem;
using engine::DataError;
using nlohmann::ordered_json;

/// Options of the run that name its files.
TrainOptions options_of_run(const fs::path& run) {
  const fs::path config = run / "config.json";
  if (!engine::is_there(config)) {
    throw DataError(
        "{}: is a folder without config.json, so not a run folder; name a checkpoint (.pt, .safetensors) or "
        "the folder of a run",
        run.string());
  }
  const ordered_json recorded = recorded_config(run);
  if (recorded.is_null()) throw DataError("{}: is not the config.json of a training", config.string());
  TrainArguments result;
  TrainOptions& o = result.options;
  result.set.read_back(recorded["options"], o.run_dir);
  result.set.read_back(recorded["options"], o.save_path);
  result.set.read_back(recorded["options"], o.save_last);
  result.set.read_back(recorded["options"], o.trainer.no_val);
  return o;
}

/// Working directory that the run was started in: `run` without the relative path recorded for it. Empty if
/// the folder was renamed since or its recorded path is absolute.
fs::path folder_of_start(const fs::path& run, const fs::path& recorded) {
  fs::path here = fs::absolute(run).lexically_normal();
  fs::path there = recorded.lexically_normal();
  if (!here.has_filename()) here = here.parent_path();
  if (!there.has_filename()) there = there.parent_path();
  if (there.is_absolute()) return {};
  while (!there.empty() && there != ".") {
    if (there.filename() != here.filename()) return {};
    here = here.parent_path();
    there = there.parent_path();
  }
  return here;
}

/// Throws DataError if the checkpoint is another run's: a file of the same name may lie beside a moved
/// folder.
void check_is_of_run(const fs::path& checkpoint, const fs::path& run) {
  engine::LoadedCheckpoint found;
  try {
    found = engine::read_training_checkpoint(checkpoint);
  } catch (const DataError&) {
    return;  // reported when it is loaded
  }
  const ordered_json recorded = recorded_config(run);
  const int world_size = recorded.value("world_size", 1);
  const std::optional<Difference> difference = first_difference(
      {found.config, found.engine.value("world_size", world_size)}, {recorded["options"], world_size});
  if (!difference) return;
  throw DataError("{}: is not the checkpoint of the run of {} ({} there); name the one that is meant",
                  checkpoint.string(), run.string(), difference->text);
}

}  // namespace

fs::path checkpoint_path(const fs::path& path) {
  if (!engine::is_folder(path)) return path;
  const TrainOptions options = options_of_run(path);
  const RunPaths paths = run_paths(options);
  const bool keeps_last = options.trainer.no_val && !options.save_last.empty();
  const fs::path kept = keeps_last ? fs::path(options.save_last) : paths.save_path;
  // A file of that name in the current directory is no candidate: it may be another run's.
  std::vector<fs::path> candidates;
  if (kept.is_absolute()) {
    candidates.push_back(kept);
  } else if (const fs::path start = folder_of_start(path, paths.run_dir); !start.empty()) {
    candidates.push_back((start / kept).lexically_normal());
  }
  candidates.push_back(path / kept.filename());
  candidates.push_back((path / ".." / kept.filename()).lexically_normal());
  const auto found = std::ranges::find(candidates, engine::PathKind::kFile, engine::path_kind);
  if (found == candidates.end()) {
    throw DataError(
        "{}: the checkpoint of its run, {}, is not there: none was kept yet, or it lies elsewhere; name the "
        "checkpoint itself",
        path.string(), candidates.front().string());
  }
  // Relative if the folder was given by a relative path.
  const bool shorten = path.is_relative() && !kept.is_absolute();
  fs::path checkpoint = shorten ? found->lexically_proximate(fs::current_path()) : *found;
  check_is_of_run(checkpoint, path);
  return checkpoint;
}

}  // namespace voca::tools
