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

std::vector<std::int64_t> chosen_samples(const data::Dataset& dataset, const std::string& split) {
  if (!split.empty()) return dataset.samples_of(data::parse_split(split));
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
struct Request {
  std::vector<std::string> checkpoints;
  std::string split;
  std::string out;
  bool overwrite = false;
};

/// Checks the output file before the first checkpoint is read.
void check_predictions_file(const InferenceOptions& options, const Request& which) {
  if (is_stdout(which.out)) return;
  std::vector<InputFile> inputs{{"--features_root", options.features_root}};
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

void predict_in(JoinedJob& job, const OptionSet& set, const InferenceOptions& options, const Request& which) {
  engine::ProgressBar progress = engine::ProgressBar::on_stderr(options.quiet, /*silent=*/!job.first());
  if (job.first()) check_predictions_file(options, which);
  std::vector<TrainedNetwork> networks;
  for (const std::string& path : which.checkpoints)
    networks.push_back(load_network(checkpoint_path(path), options.checkpoint));
  check_same_classes(networks);
  const auto dataset = open_inference_data(set, options, networks.front(), progress, job,
                                           /*labels_needed=*/false);
  for (const TrainedNetwork& network : networks) check_widths(network, *dataset);
  const std::vector<std::int64_t> samples = chosen_samples(*dataset, which.split);
  if (samples.empty())
    throw engine::DataError("{}: the {} split is empty", options.features_root, which.split);
  if (!which.split.empty())
    for (const TrainedNetwork& network : networks) warn_of_other_split(network, *dataset, progress);
  const std::unique_ptr<engine::Device> device = make_device(options, job, progress);
  job.connect(*device);
  std::vector<engine::Predictions> predictions;
  predictions.reserve(networks.size());
  for (const TrainedNetwork& network : networks) {
    predictions.push_back(
        predict_samples(network, dataset, samples, prediction_options(options, job), *device));
  }
  const engine::Predictions average = engine::mean_outputs(predictions);
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

/// Parsed command line of `predict`.
struct PredictOptions {
  InferenceOptions inference;
  std::string checkpoints;
  std::string split;
  std::string out = "-";
  bool overwrite = false;
  OptionSet set{
      "predict",
      "Writes the verdict on every video as CSV: id,label,split,logit,prob_real, in the order of the data."};
};

/// Parses the command line; false if only help was requested. Throws UsageError.
bool read(CommandLine command_line, PredictOptions& options) {
  OptionSet& set = options.set;
  set.begin_group("Checkpoint");
  set.add("checkpoint", &options.checkpoints, "F.pt[,G.pt...]",
          ".pt or .safetensors; of a run folder its best; the logits of several are averaged");
  set.add("split", &options.split, "train|val|test", "only this split; empty: every video");
  set.add("out", &options.out, "preds.csv", "where the CSV goes; -: stdout");
  set.add_flag("overwrite", &options.overwrite, "replace predictions that --out holds");
  add_inference_options(set, options.inference);
  if (!set.parse(command_line)) return false;
  set.require("checkpoint");
  set.require("features_root");
  check(options.inference);
  if (options.inference.json && is_stdout(options.out))
    throw engine::UsageError("--json: describes the CSV file; name it with --out");
  return true;
}

}  // namespace

void predict(CommandLine command_line) {
  PredictOptions options;
  if (!read(command_line, options)) return;
  in_inference_job(options.set, options.inference, [&](JoinedJob& job) {
    predict_in(job, options.set, options.inference,
               {.checkpoints = split_list(options.checkpoints),
                .split = options.split,
                .out = options.out,
                .overwrite = options.overwrite});
  });
}

bool check_predict(CommandLine command_line) {
  PredictOptions options;
  if (!read(command_line, options)) return false;
  check_readable("--features_root", options.inference.features_root);
  for (const std::string& path : split_list(options.checkpoints)) check_readable("--checkpoint", path);
  return true;
}

}  // namespace voca::tools
