#include "model/tasks/detection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>

#include "engine/base/error.h"

namespace voca::model {

using engine::DataError;
using engine::Predictions;
using engine::UsageError;

namespace {

double sigmoid(double logit) {
  const double e = std::exp(-std::abs(logit));
  return logit >= 0 ? 1 / (1 + e) : e / (1 + e);
}

void softmax(const double* logits, std::int64_t classes, double* out) {
  const double largest = *std::max_element(logits, logits + classes);
  double sum = 0;
  for (std::int64_t k = 0; k < classes; ++k) sum += out[k] = std::exp(logits[k] - largest);
  for (std::int64_t k = 0; k < classes; ++k) out[k] /= sum;
}

/// (n) Labels, all known.
std::vector<int> known_labels(const Predictions& predictions) {
  if (predictions.samples.empty()) {
    throw DataError(
        "evaluation: no sample of the split could be used, all are damaged; copy or pack the data again");
  }
  const std::vector<double>& labels = predictions.target(kLabel).values;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0) {
      throw DataError("evaluation: sample {} has no label; measures need the label of every sample",
                      predictions.samples[i]);
    }
  }
  return {labels.begin(), labels.end()};
}

std::optional<double> mean(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

template <typename Predicate>
std::string names_of(Predicate&& predicate) {
  std::string names;
  for (const SelectingMeasure& row : selections())
    if (predicate(row)) names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
  return names;
}

}  // namespace

std::vector<double> probabilities(const Predictions& predictions) {
  const engine::PredictionColumn& logits = predictions.output(kLogits);
  std::vector<double> result(logits.values.size());
  if (logits.width == 1) {
    std::transform(logits.values.begin(), logits.values.end(), result.begin(), sigmoid);
    return result;
  }
  const auto classes = static_cast<std::size_t>(logits.width);
  for (std::size_t first = 0; first < result.size(); first += classes)
    softmax(&logits.values[first], logits.width, &result[first]);
  return result;
}

Metrics measure(const Predictions& predictions, double threshold) {
  const std::vector<int> labels = known_labels(predictions);
  const std::vector<double> probability = probabilities(predictions);
  if (const std::int64_t classes = predictions.output(kLogits).width; classes > 1) {
    ClassMetrics metrics = class_metrics(probability, labels, static_cast<int>(classes));
    metrics.loss = mean(predictions.losses);
    return metrics;
  }
  BinaryMetrics metrics = binary_metrics(probability, labels, threshold);
  metrics.loss = mean(predictions.losses);
  return metrics;
}

std::optional<double> fit_threshold(const Predictions& validation, const ThresholdRule& rule) {
  if (validation.output(kLogits).width != 1) return std::nullopt;
  const std::vector<int> labels = known_labels(validation);
  return fit_threshold(roc_curve(probabilities(validation), labels), rule);
}

const SelectingMeasure& DetectionTask::row(std::string_view name) const {
  const SelectingMeasure& row = model::selection(name);
  if (row.is_of_classes || classes_ == 1) return row;
  throw UsageError(
      "--select_by {}: is defined for one logit (--num_classes 1), the model has {}; use one of {}", name,
      classes_, names_of([](const SelectingMeasure& other) { return other.is_of_classes; }));
}

const engine::Selection& DetectionTask::selection(std::string_view name) const {
  return row(name);
}

std::vector<engine::MeasuredValue> DetectionTask::validate(const Predictions& val) const {
  const std::optional<double> threshold = fit_threshold(val, threshold_by_);
  std::vector<engine::MeasuredValue> measured;
  std::visit(
      [&](const auto& metrics) {
        for (const auto& row : measures_of(metrics))
          measured.push_back({row.select_by, row.record, row.value(metrics)});
      },
      measure(val, threshold.value_or(0.5)));
  measured.push_back({"threshold", "val_threshold", threshold});
  return measured;
}

void DetectionTask::check_selection(std::string_view name,
                                    std::span<const engine::PredictionColumn> targets) const {
  if (!row(name).needs_two_classes) return;
  const std::vector<double>& labels = engine::column(targets, kLabel).values;
  const std::set<double> classes(labels.begin(), labels.end());
  if (std::count_if(classes.begin(), classes.end(), [](double label) { return label >= 0; }) >= 2) return;
  throw UsageError(
      "--select_by {}: is not defined on a validation split of one class only; use one of {}, or another "
      "split",
      name, names_of([](const SelectingMeasure& other) { return !other.needs_two_classes; }));
}

}  // namespace voca::model
