#include "engine/trainer/records.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

using nlohmann::ordered_json;

ordered_json number(std::optional<double> value) {
  if (!value || !std::isfinite(*value)) return nullptr;
  return *value;
}

/// What lines of steps and epochs begin with.
template <typename Record>
ordered_json line_of(const char* kind, const Record& record) {
  ordered_json line{{"kind", kind}, {"epoch", record.epoch}, {"step", record.step}};
  for (std::size_t i = 0; i < record.loss.names.size(); ++i)
    line[record.loss.names[i]] = number(record.loss.values[i]);
  line["lr"] = record.lr;
  line["grad_norm"] = number(record.grad_norm);
  return line;
}

}  // namespace

double LossValues::at(std::string_view name) const {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) throw InternalError("losses: there is no \"{}\"", name);
  return values[static_cast<std::size_t>(found - names.begin())];
}

void LossValues::add(double weight, const LossValues& other) {
  names = other.names;
  for (std::size_t i = 0; i < names.size(); ++i) values[i] += weight * other.values[i];
}

LossValues LossValues::over(double divisor) const {
  LossValues result = *this;
  for (double& value : result.values) value = divisor > 0 ? value / divisor : std::nan("");
  return result;
}

std::optional<double> ValidationSummary::measure(std::string_view name) const {
  const auto found = measures.find(name);
  return found == measures.end() ? std::nullopt : found->second;
}

ordered_json to_json(const StepRecord& record) {
  ordered_json line = line_of("step", record);
  line["skipped"] = record.skipped;
  line["loss_scale"] = record.loss_scale;
  line["bad_steps"] = record.bad_steps;
  line["overflow_steps"] = record.overflow_steps;
  line["bad_samples"] = record.bad_samples;
  line["samples_per_s"] = number(record.samples_per_s);
  return line;
}

ordered_json to_json(const EpochRecord& record) {
  ordered_json line = line_of("epoch", record);
  line["samples"] = record.samples;
  line["bad_steps"] = record.bad_steps;
  line["overflow_steps"] = record.overflow_steps;
  line["bad_samples"] = record.bad_samples;
  line["samples_per_s"] = number(record.samples_per_s);
  for (const MeasuredValue& measured : record.val)
    if (!measured.record.empty()) line[std::string(measured.record)] = number(measured.value);
  if (!record.val.empty()) line["best"] = record.best;
  line["seconds"] = number(record.seconds);
  return line;
}

}  // namespace voca::engine
