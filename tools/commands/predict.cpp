#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <sstream>

#include "engine/base/error.h"
#include "engine/telemetry/progress_bar.h"
#include "model/tasks/detection.h"
#include "tools/checkpoint_path.h"
#include "tools/commands.h"
#include "tools/options/inference_options.h"
#include "tools/output_file.h"
#include "tools/result.h"

namespace voca::tools {
namespace {

std::vector<std::string> split_list(const std::string& text) {
  std::error_code error;
  if (std::filesystem::exists(text, error)) return {text};  // a path that contains a comma
  std::vector<std::string> items;
  std::stringstream stream(text + ',');
  for (std::string item; std::getline(stream, item, ',');) {
    item.erase(0, item.find_first_not_of(' '));
    if (item.empty()) throw engine::UsageError("--checkpoint: \"{}\" has an empty name between commas", text);
    items.push_back(item);
  }
  return items;
}

std::vector<std::int64_t> chosen_samples(const data::Dataset& dataset, std::optional<data::Split> split) {
  if (split) return dataset.samples_of(*split);
  std::vector<std::int64_t> all(static_cast<std::size_t>(dataset.size()));
  std::iota(all.begin(), all.end(), std::int64_t{0});
  return all;
}

/// A CSV field, quoted if necessary (RFC 4180).
std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

std::string csv(const engine::Predictions& predictions, const data::Dataset& dataset) {
  const engine::PredictionColumn& logits = predictions.output(model::kLogits);
  const std::vector<double>& labels = predictions.target(model::kLabel).values;
  const auto classes = static_cast<std::size_t>(logits.width);
  const std::vector<double> probabilities = model::probabilities(predictions);
  std::string text = "id,label,split";
  if (classes == 1) {
    text += ",logit,prob_real";
  } else {
    for (std::size_t k = 0; k < classes; ++k) text += fmt::format(",logit_{}", k);
    for (std::size_t k = 0; k < classes; ++k) text += fmt::format(",prob_{}", k);
  }
  text += '\n';
  for (std::size_t i = 0; i < predictions.samples.size(); ++i) {
    const std::int64_t sample = predictions.samples[i];
    const auto label = static_cast<int>(labels[i]);
    text += fmt::format("{},{},{}", csv_field(dataset.id(sample)), label < 0 ? "" : std::to_string(label),
                        data::name_of(dataset.split(sample)));
    // Nine digits restore a float exactly; the mean of several is a double.
    for (std::size_t k = 0; k < classes; ++k) text += fmt::format(",{:.9g}", logits.values[i * classes + k]);
    for (std::size_t k = 0; k < classes; ++k) text += fmt::format(",{:.9g}", probabilities[i * classes + k]);
    text += '\n';
  }
  return text;
}

/// What to predict, with which checkpoints, and where the result goes.
struct PredictRequest {
  InferenceOptions options;
  std::string checkpoint;
  std::vector<std::string> checkpoints;  ///< that --checkpoint lists
  std::optional<data::Split> split;
  std::string out = "-";
  bool overwrite = false;
  OptionSet set{
      "predict",
      "Writes the verdict on every video as CSV: id,label,split,logit,prob_real, in the order of the data."};
};

/// Checks the output file before the first checkpoint is read.
void check_predictions_file(const PredictRequest& which) {
  if (is_stdout(which.out)) return;
  std::vector<InputFile> inputs{{"--features_root", which.options.features_root}};
  for (const std::string& path : which.checkpoints) inputs.push_back({"--checkpoint", checkpoint_path(path)});
  check_output({"--out", which.out, OutputKind::kPredictions}, inputs,
               which.overwrite ? Existing::kReplace : Existing::kAskFor);
}

/// Throws DataError if the networks have different classes: logits are averaged per class.
void check_same_classes(const std::vector<TrainedNetwork>& networks) {
  const TrainedNetwork& first = networks.front();
  for (const TrainedNetwork& other : networks) {
    if (other.config.num_classes != first.config.num_classes) {
      throw engine::DataError(
          "--checkpoint: {} has num_classes {} and {} has {}; average checkpoints of the same classes",
          first.path, first.config.num_classes, other.path, other.config.num_classes);
    }
  }
}

void predict_in(JoinedJob& job, const PredictRequest& which) {
  const InferenceOptions& options = which.options;
  engine::ProgressBar progress = engine::ProgressBar::on_stderr(options.quiet, /*silent=*/!job.first());
  if (job.first()) check_predictions_file(which);
  std::vector<TrainedNetwork> networks;
  for (const std::string& path : which.checkpoints)
    networks.push_back(load_network(checkpoint_path(path), options.checkpoint));
  check_same_classes(networks);
  const auto dataset = open_inference_data(options, networks.front(), progress, job, /*labels_needed=*/false);
  for (const TrainedNetwork& network : networks) check_fits(network, *dataset);
  const std::vector<std::int64_t> samples = chosen_samples(*dataset, which.split);
  if (samples.empty())
    throw engine::DataError("{}: the {} split is empty", options.features_root, data::name_of(*which.split));
  if (which.split)
    for (const TrainedNetwork& network : networks) warn_of_other_split(network, *dataset, progress);
  const std::unique_ptr<engine::Device> device = make_device(options, job, progress);
  job.connect(*device);
  const engine::Predictions average = engine::mean_outputs(
      predict_samples(networks, dataset, samples, prediction_options(options, job), *device));
  if (!job.first()) return;
  const std::string text = csv(average, *dataset);
  if (is_stdout(which.out)) {
    print_data(text);
    return;
  }
  write_output(which.out, text);
  const std::int64_t bad = static_cast<std::int64_t>(samples.size()) - average.size();
  if (options.json) {
    print_json({{"out", which.out},
                {"videos", average.size()},
                {"bad_samples", bad},
                {"checkpoints", networks.size()}});
  } else {
    print_text(fmt::format("{}: {} videos{}\n", which.out, average.size(),
                           bad > 0 ? fmt::format(", {} left out: their frames are damaged", bad) : ""));
  }
}

/// Parses the command line; false if only help was requested. Throws UsageError.
bool read(CommandLine command_line, PredictRequest& request) {
  OptionSet& set = request.set;
  set.begin_group("Checkpoint");
  set.add(request.checkpoint,
          {"checkpoint", "F.pt[,G.pt...]",
           ".pt or .safetensors; of a run folder its best; the logits of several are averaged"});
  set.add(request.split, {"split", "", "only this split; empty: every video"});
  set.add(request.out, {"out", "preds.csv", "where the CSV goes; -: stdout", kAny, Effect::kRank});
  set.add(request.overwrite, {"overwrite", "", "replace predictions that --out holds", kAny, Effect::kRank});
  add_inference_options(set, request.options);
  if (!set.parse(command_line)) return false;
  set.require(request.checkpoint);
  set.require(request.options.features_root);
  set.require(request.out);
  if (request.options.json && is_stdout(request.out))
    throw engine::UsageError("--json: describes the CSV file; name it with --out");
  request.checkpoints = split_list(request.checkpoint);
  return true;
}

}  // namespace

void predict(CommandLine command_line) {
  PredictRequest request;
  if (!read(command_line, request)) return;
  in_inference_job(request.set, request.options, [&](JoinedJob& job) { predict_in(job, request); });
}

std::optional<InferenceOptions> check_predict(CommandLine command_line) {
  PredictRequest request;
  if (!read(command_line, request)) return std::nullopt;
  check_readable("--features_root", request.options.features_root);
  for (const std::string& path : request.checkpoints) check_readable("--checkpoint", path);
  return request.options;
}

}  // namespace voca::tools
