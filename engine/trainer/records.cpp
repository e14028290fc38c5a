#include "engine/trainer/records.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "model/metrics/measure_table.h"

namespace voca::engine {
namespace {

using nlohmann::ordered_json;

ordered_json number(std::optional<double> value) {
  if (!value || !std::isfinite(*value)) return nullptr;
  return *value;
}

void put_losses(ordered_json& line, const LossValues& loss) {
  line["loss"] = number(loss.total);
  line["cls"] = number(loss.classification);
  line["con"] = number(loss.contrastive);
}

template <typename Metrics>
void put_metrics(ordered_json& line, const Metrics& metrics) {
  for (const auto& row : measures_of(metrics))
    if (!row.record.empty()) line[std::string(row.record)] = number(row.value(metrics));
}

}  // namespace

std::optional<double> ValidationSummary::measure(std::string_view name) const {
  const auto found = measures.find(name);
  return found == measures.end() ? std::nullopt : found->second;
}

ordered_json to_json(const StepRecord& record) {
  ordered_json line;
  line["kind"] = "step";
  line["epoch"] = record.epoch;
  line["step"] = record.step;
  put_losses(line, record.loss);
  line["lr"] = record.lr;
  line["grad_norm"] = number(record.grad_norm);
  line["skipped"] = record.skipped;
  line["loss_scale"] = record.loss_scale;
  line["bad_steps"] = record.bad_steps;
  line["overflow_steps"] = record.overflow_steps;
  line["bad_samples"] = record.bad_samples;
  line["samples_per_s"] = number(record.samples_per_s);
  return line;
}

ordered_json to_json(const EpochRecord& record) {
  ordered_json line;
  line["kind"] = "epoch";
  line["epoch"] = record.epoch;
  line["step"] = record.step;
  put_losses(line, record.loss);
  line["lr"] = record.lr;
  line["grad_norm"] = number(record.grad_norm);
  line["samples"] = record.samples;
  line["bad_steps"] = record.bad_steps;
  line["overflow_steps"] = record.overflow_steps;
  line["bad_samples"] = record.bad_samples;
  line["samples_per_s"] = number(record.samples_per_s);
  if (record.val) {
    std::visit([&](const auto& metrics) { put_metrics(line, metrics); }, *record.val);
    line["val_threshold"] = record.summary ? number(record.summary->threshold) : nullptr;
    line["best"] = record.best;
  }
  line["seconds"] = number(record.seconds);
  return line;
}

}  // namespace voca::engine
