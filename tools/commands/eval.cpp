#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/path_status.h"
#include "engine/base/terminal.h"
#include "engine/telemetry/progress_bar.h"
#include "tools/checkpoint_path.h"
#include "tools/commands.h"
#include "tools/evaluation.h"
#include "tools/options/inference_options.h"
#include "tools/result.h"

namespace voca::tools {

namespace {

void eval_in(JoinedJob& job, const InferenceOptions& options, const std::string& checkpoint,
             data::Split split) {
  engine::ProgressBar progress = engine::ProgressBar::on_stderr(options.quiet, /*silent=*/!job.first());
  const TrainedNetwork network = load_network(checkpoint_path(checkpoint), options.checkpoint);
  const auto dataset = open_inference_data(options, network, progress, job);
  check_fits(network, *dataset);
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

/// Parsed command line of `eval`.
struct EvalRequest {
  InferenceOptions options;
  std::string checkpoint;
  data::Split split = data::Split::kTest;
  OptionSet set{"eval", "Measures a checkpoint on a split (docs/evaluation.md)."};
};

/// Parses the command line; false if only help was requested. Throws UsageError.
bool read(CommandLine command_line, EvalRequest& request) {
  OptionSet& set = request.set;
  set.begin_group("Checkpoint");
  set.add(request.checkpoint, {"checkpoint", "F.pt", ".pt or .safetensors; of a run folder its best"});
  set.add(request.split, {"split", "", "the split"});
  add_inference_options(set, request.options);
  if (!set.parse(command_line)) return false;
  set.require(request.checkpoint);
  set.require(request.options.features_root);
  const std::string& checkpoint = request.checkpoint;
  if (checkpoint.find(',') != std::string::npos && !engine::is_there(checkpoint)) {
    throw engine::UsageError(
        "--checkpoint {}: no such file; eval measures one checkpoint, predict averages several", checkpoint);
  }
  return true;
}

}  // namespace

void eval(CommandLine command_line) {
  EvalRequest request;
  if (!read(command_line, request)) return;
  in_inference_job(request.set, request.options,
                   [&](JoinedJob& job) { eval_in(job, request.options, request.checkpoint, request.split); });
}

std::optional<InferenceOptions> check_eval(CommandLine command_line) {
  EvalRequest request;
  if (!read(command_line, request)) return std::nullopt;
  check_readable("--features_root", request.options.features_root);
  check_readable("--checkpoint", request.checkpoint);
  return request.options;
}

}  // namespace voca::tools
