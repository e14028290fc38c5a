#include "tools/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <variant>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/terminal.h"
#include "engine/base/text.h"
#include "engine/checkpoint/torch/value.h"
#include "model/tasks/detection.h"

namespace voca::tools {

using nlohmann::ordered_json;

namespace {

std::string number(const ordered_json& value) {
  return value.is_null() ? "undefined" : fmt::format("{:.4f}", value.get<double>());
}

/// "auc 0.9950", with a space at which the line is not wrapped.
std::string measure(std::string_view name, const ordered_json& value) {
  std::string text = fmt::format("{} {}", name, number(value));
  std::replace(text.begin(), text.end(), ' ', engine::kFixedSpace);
  return text;
}

/// Origin of the decision threshold, with the rule it was fitted by if known.
std::string threshold_source(const ordered_json& e) {
  std::string text = e["threshold_from"].get<std::string>();
  if (!e["threshold_by"].is_null()) text += " by " + engine::printable(e["threshold_by"].get<std::string>());
  return text;
}

std::string count(const ordered_json& value) {
  return value.dump();
}

/// Formats a table: the first column is left-aligned, the others right-aligned. Columns that do not fit go
/// into further tables below, which repeat the first column.
std::string table(const std::vector<std::vector<std::string>>& rows, int columns) {
  constexpr std::size_t kGap = 2;
  std::vector<std::size_t> widths(rows.front().size());
  for (const std::vector<std::string>& row : rows)
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  std::string text;
  for (std::size_t first = 1; first < widths.size();) {
    std::size_t end = first;
    std::size_t used = kGap + widths[0];
    while (end < widths.size() &&
           (end == first || used + kGap + widths[end] <= static_cast<std::size_t>(columns))) {
      used += kGap + widths[end++];
    }
    for (const std::vector<std::string>& row : rows) {
      text += fmt::format("{:{}}{:<{}}", "", kGap, row[0], widths[0]);
      for (std::size_t c = first; c < end; ++c)
        text += fmt::format("{:{}}{:>{}}", "", kGap, row[c], widths[c]);
      text += '\n';
    }
    first = end;
  }
  return text;
}

/// Precision, recall and F1 of each class, and below them the confusion matrix.
std::string rates_text(const ordered_json& rates, int columns) {
  const ordered_json& c = rates["confusion"];
  const auto n = [&](const char* as_real, const char* as_fake) {
    return fmt::format("{}", c[as_real].get<std::int64_t>() + c[as_fake].get<std::int64_t>());
  };
  return table({{"label", "precision", "recall", "F1", "n"},
                {"real", number(rates["precision_real"]), number(rates["recall_real"]),
                 number(rates["f1_real"]), n("real_as_real", "real_as_fake")},
                {"fake", number(rates["precision_fake"]), number(rates["recall_fake"]),
                 number(rates["f1_fake"]), n("fake_as_real", "fake_as_fake")}},
               columns) +
         table({{"label", "taken for real", "taken for fake"},
                {"real", count(c["real_as_real"]), count(c["real_as_fake"])},
                {"fake", count(c["fake_as_real"]), count(c["fake_as_fake"])}},
               columns);
}

std::string at_threshold_text(double threshold, const std::string& from, const ordered_json& rates,
                              int columns) {
  return engine::wrapped(fmt::format("\nat threshold {:.4f}{}\n  {}  {}\n", threshold,
                                     from.empty() ? "" : " (" + from + ")", measure("acc", rates["acc"]),
                                     measure("balanced acc", rates["balanced_acc"])),
                         columns, 2) +
         rates_text(rates, columns);
}

/// The labelled measures of a table, five per line.
template <typename Metrics>
std::string measures_text(const ordered_json& e, std::span<const model::Measure<Metrics>> rows) {
  constexpr int kPerLine = 5;
  std::string text;
  int count = 0;
  for (const model::Measure<Metrics>& row : rows) {
    if (row.label.empty()) continue;
    if (count > 0 && count % kPerLine == 0) text += "\n";
    text += "  " + measure(row.label, e[std::string(row.name)]);
    ++count;
  }
  return text + "\n";
}

std::string binary_text(const ordered_json& e, int columns) {
  std::string text = engine::wrapped("positive class: real (a score is the probability of real)\n" +
                                         measures_text(e, model::measures_of(model::BinaryMetrics{})),
                                     columns, 2);
  text += at_threshold_text(0.5, "", e, columns);
  return text +
         at_threshold_text(e["threshold"].get<double>(), threshold_source(e), e["at_threshold"], columns);
}

/// Row of class `k`: label, precision, recall, F1, AUC and number of samples.
std::vector<std::string> class_row(const ordered_json& e, std::size_t k) {
  const ordered_json& confusion = e["confusion"];
  const auto right = confusion[k][k].get<double>();
  const auto n = e["n_of_class"][k].get<double>();
  double predicted = 0;
  for (const ordered_json& row : confusion) predicted += row[k].get<double>();
  const auto ratio = [](double part, double all) {
    return all > 0 ? ordered_json(part / all) : ordered_json();
  };
  return {std::to_string(k),
          number(ratio(right, predicted)),
          number(e["recall_of_class"][k]),
          number(ratio(2 * right, n + predicted)),
          number(e["auc_of_class"][k]),
          count(e["n_of_class"][k])};
}

std::string classes_text(const ordered_json& e, int columns) {
  std::vector<std::vector<std::string>> rates{{"label", "precision", "recall", "F1", "auc", "n"}};
  std::vector<std::vector<std::string>> confusion{{"label"}};
  for (std::size_t k = 0; k < e["n_of_class"].size(); ++k) {
    rates.push_back(class_row(e, k));
    confusion[0].push_back(fmt::format("{}for {}", k == 0 ? "taken " : "", k));
    confusion.push_back({std::to_string(k)});
    for (const ordered_json& cell : e["confusion"][k]) confusion.back().push_back(count(cell));
  }
  return engine::wrapped(measures_text(e, model::measures_of(model::ClassMetrics{})), columns, 2) + "\n" +
         table(rates, columns) + table(confusion, columns);
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
  const model::Metrics metrics = model::measure(predictions, fitted.value_or(0.5));
  ordered_json json{{"split", data::name_of(split)}};
  json.update(std::visit([](const auto& measured) { return model::metrics_json(measured); }, metrics));
  if (std::holds_alternative<model::BinaryMetrics>(metrics)) {
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

std::string evaluation_text(const ordered_json& e, int columns) {
  const bool binary = e.contains("n_real");
  std::string text = fmt::format("{}: n {}", e["split"].get<std::string>(), e["n"].dump());
  if (binary) text += fmt::format(" ({} real, {} fake)", e["n_real"].dump(), e["n_fake"].dump());
  if (const auto bad = e["bad_samples"].get<std::int64_t>(); bad > 0)
    text += fmt::format(", {} left out: their frames are damaged", bad);
  text += fmt::format(", split {}\n", e["split_hash"].get<std::string>().substr(0, 12));
  return engine::wrapped(text, columns, 2) + (binary ? binary_text(e, columns) : classes_text(e, columns));
}

}  // namespace voca::tools
