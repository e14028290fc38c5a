#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "engine/error.h"
#include "engine/path_status.h"
#include "engine/progress.h"
#include "engine/terminal.h"
#include "tools/checkpoint_path.h"
#include "tools/commands.h"
#include "tools/evaluation.h"
#include "tools/inference_options.h"
#include "tools/result.h"

namespace voca::tools {

namespace {

void eval_in(JoinedJob& job, const OptionSet& set, const InferenceOptions& options,
             const std::string& checkpoint, data::Split split) {
  engine::Progress progress = engine::Progress::on_stderr(options.quiet, /*silent=*/!job.first());
  const TrainedNetwork network = load_network(checkpoint_path(checkpoint), options.checkpoint);
  const auto dataset = open_inference_data(set, options, network, progress, job);
  check_widths(network, *dataset);
  warn_of_other_split(network, *dataset, progress);
  const std::unique_ptr<engine::Device> device = make_device(options, job, progress);
  job.connect(*device);
  const nlohmann::ordered_json result =
      evaluate(network, dataset, split, prediction_options(options, job), *device);
  if (!job.first()) return;
  if (options.json) {
    print_json(result);
  } else {
    print_text(evaluation_text(result, engine::terminal_columns(STDOUT_FILENO)));
  }
}

}  // namespace

void eval(CommandLine command_line) {
  InferenceOptions options;
  std::string checkpoint;
  std::string split = "test";
  OptionSet set("eval", "Measures a checkpoint on a split (docs/evaluation.md).");
  set.begin_group("Checkpoint");
  set.add("checkpoint", &checkpoint, "F.pt", ".pt or .safetensors; of a run folder its best");
  set.add("split", &split, "train|val|test", "the split");
  add_inference_options(set, options);
  if (!set.parse(command_line)) return;
  set.require("checkpoint");
  set.require("features_root");
  check(options);
  if (checkpoint.find(',') != std::string::npos && !engine::is_there(checkpoint)) {
    throw engine::UsageError(
        "--checkpoint {}: no such file; eval measures one checkpoint, predict averages several", checkpoint);
  }
  const data::Split which = data::parse_split(split);
  in_inference_job(set, options, [&](JoinedJob& job) { eval_in(job, set, options, checkpoint, which); });
}

}  // namespace voca::tools
