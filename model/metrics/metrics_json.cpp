#include "model/metrics/measure_table.h"

#include <nlohmann/json.hpp>
#include "model/metrics/metrics.h"

namespace voca::model {
namespace {

using nlohmann::ordered_json;

ordered_json number(const std::optional<double>& value) {
  return value ? ordered_json(*value) : ordered_json();
}

ordered_json numbers(const std::vector<std::optional<double>>& values) {
  ordered_json array = ordered_json::array();
  for (const std::optional<double>& value : values) array.push_back(number(value));
  return array;
}

template <typename Metrics>
void add_measures(ordered_json& to, const Metrics& metrics) {
  for (const auto& row : measures_of(metrics)) to[std::string(row.name)] = number(row.value(metrics));
}

ordered_json confusion_json(const Decisions& d) {
  return {{"real_as_real", d.real_as_real},
          {"real_as_fake", d.real_as_fake},
          {"fake_as_real", d.fake_as_real},
          {"fake_as_fake", d.fake_as_fake}};
}

void add_rates(ordered_json& to, const Decisions& d) {
  to["acc"] = number(d.acc);
  to["balanced_acc"] = number(d.balanced_acc);
  to["precision_real"] = number(d.precision_real);
  to["recall_real"] = number(d.recall_real);
  to["f1_real"] = number(d.f1_real);
  to["precision_fake"] = number(d.precision_fake);
  to["recall_fake"] = number(d.recall_fake);
  to["f1_fake"] = number(d.f1_fake);
  to["specificity"] = number(d.recall_fake);
  to["confusion"] = confusion_json(d);
}

ordered_json reliability_json(const Calibration& calibration) {
  ordered_json bins = ordered_json::array();
  const auto count = static_cast<double>(calibration.bins.size());
  for (std::size_t i = 0; i < calibration.bins.size(); ++i) {
    const ReliabilityBin& bin = calibration.bins[i];
    bins.push_back({{"from", static_cast<double>(i) / count},
                    {"to", static_cast<double>(i + 1) / count},
                    {"n", bin.n},
                    {"mean_prob_real", number(bin.mean_prob_real)},
                    {"fraction_real", number(bin.fraction_real)}});
  }
  return bins;
}

}  // namespace

ordered_json metrics_json(const BinaryMetrics& metrics) {
  ordered_json json;
  json["positive_class"] = "real";
  json["n"] = metrics.n_real + metrics.n_fake;
  json["n_real"] = metrics.n_real;
  json["n_fake"] = metrics.n_fake;
  add_measures(json, metrics);
  add_rates(json, metrics.at_half);
  json["threshold"] = metrics.at_threshold.threshold;
  json["at_threshold"] = ordered_json::object();
  add_rates(json["at_threshold"], metrics.at_threshold);
  json["reliability"] = reliability_json(metrics.calibration);
  return json;
}

ordered_json metrics_json(const ClassMetrics& metrics) {
  ordered_json json;
  json["n"] = metrics.n;
  json["n_of_class"] = metrics.n_of_class;
  add_measures(json, metrics);
  json["auc_of_class"] = numbers(metrics.auc_of_class);
  json["recall_of_class"] = numbers(metrics.recall_of_class);
  json["confusion"] = metrics.confusion;
  return json;
}

}  // namespace voca::model
