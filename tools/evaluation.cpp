#include "tools/evaluation.h"

#include <fmt/format.h>

#include <variant>

#include "engine/checkpoint/value.h"
#include "engine/error.h"

namespace voca::tools {

using nlohmann::ordered_json;

namespace {

std::string number(const ordered_json& value) {
  return value.is_null() ? "undefined" : fmt::format("{:.4f}", value.get<double>());
}

std::string rates_text(const ordered_json& rates) {
  const ordered_json& c = rates["confusion"];
  return fmt::format(
      "  acc {}  balanced {}  real: precision {} recall {} F1 {}  fake: precision {} recall {} F1 {}\n"
      "  real taken for real {}, for fake {}; fake taken for real {}, for fake {}\n",
      number(rates["acc"]), number(rates["balanced_acc"]), number(rates["precision_real"]),
      number(rates["recall_real"]), number(rates["f1_real"]), number(rates["precision_fake"]),
      number(rates["recall_fake"]), number(rates["f1_fake"]), c["real_as_real"].dump(),
      c["real_as_fake"].dump(), c["fake_as_real"].dump(), c["fake_as_fake"].dump());
}

/// Where the decision threshold comes from, with the rule it was fitted by where that is known.
std::string threshold_source(const ordered_json& e) {
  std::string text = e["threshold_from"].get<std::string>();
  if (!e["threshold_by"].is_null()) text += " by " + engine::printable(e["threshold_by"].get<std::string>());
  return text;
}

std::string binary_text(const ordered_json& e) {
  return fmt::format(
      "positive class: real (a score is the probability of real)\n"
      "  auc {}  ap(real) {}  ap(fake) {}  eer {}  tpr at fpr 1% {}, 0.1% {}  ece {}  loss {}\n"
      "at 0.5\n{}"
      "at {:.4f}, {}\n{}",
      number(e["auc"]), number(e["ap_real"]), number(e["ap_fake"]), number(e["eer"]),
      number(e["tpr_at_fpr_1pct"]), number(e["tpr_at_fpr_01pct"]), number(e["ece"]), number(e["loss"]),
      rates_text(e), e["threshold"].get<double>(), threshold_source(e), rates_text(e["at_threshold"]));
}

std::string classes_text(const ordered_json& e) {
  std::string text = fmt::format("  acc {}  balanced {}  macro auc {}  loss {}\n", number(e["acc"]),
                                 number(e["balanced_acc"]), number(e["auc"]), number(e["loss"]));
  for (std::size_t k = 0; k < e["n_of_class"].size(); ++k) {
    text +=
        fmt::format("  class {}: n {}  recall {}  auc {}  predicted as {}\n", k, e["n_of_class"][k].dump(),
                    number(e["recall_of_class"][k]), number(e["auc_of_class"][k]), e["confusion"][k].dump());
  }
  return text;
}

}  // namespace

ordered_json evaluate(const TrainedNetwork& network, const std::shared_ptr<const data::Dataset>& dataset,
                      data::Split split, PredictionOptions options, engine::Device& device) {
  options.losses = true;
  const std::vector<std::int64_t> samples = dataset->samples_of(split);
  if (samples.empty())
    throw engine::DataError("{}: the {} split is empty", dataset->path().string(), data::name_of(split));
  for (const std::int64_t sample : samples) {
    if (dataset->label(sample) < 0) {
      throw engine::DataError("{}: {} has no label; measures need the label of every video, predict does not",
                              dataset->path().string(), dataset->id(sample));
    }
  }
  const engine::Predictions predictions = predict_samples(network, dataset, samples, options, device);
  const std::optional<double> fitted = network.threshold();
  const engine::Metrics metrics = engine::measure(predictions, fitted.value_or(0.5));
  ordered_json json{{"split", data::name_of(split)}};
  json.update(std::visit([](const auto& measured) { return engine::metrics_json(measured); }, metrics));
  if (predictions.outputs == 1) {
    json["threshold_from"] = fitted ? "fitted on val" : "the checkpoint carries none fitted on val";
    const std::string rule = fitted ? network.threshold_by() : "";
    json["threshold_by"] = rule.empty() ? ordered_json() : ordered_json(rule);
  }
  json["bad_samples"] = static_cast<std::int64_t>(samples.size()) - predictions.size();
  json["checkpoint"] = network.path;
  json["features"] = dataset->path().string();
  json["content_hash"] = dataset->content_hash();
  json["split_hash"] = dataset->split_hash();
  const std::string trained_on = network.split_hash();
  json["split_hash_of_training"] = trained_on.empty() ? ordered_json() : ordered_json(trained_on);
  return json;
}

std::string evaluation_text(const ordered_json& e) {
  const bool binary = e.contains("n_real");
  std::string text = fmt::format("{}: n {}", e["split"].get<std::string>(), e["n"].dump());
  if (binary) text += fmt::format(" ({} real, {} fake)", e["n_real"].dump(), e["n_fake"].dump());
  if (const auto bad = e["bad_samples"].get<std::int64_t>(); bad > 0)
    text += fmt::format(", {} left out: their frames are damaged", bad);
  text += fmt::format(", split {}\n", e["split_hash"].get<std::string>().substr(0, 12));
  return text + (binary ? binary_text(e) : classes_text(e));
}

}  // namespace voca::tools
