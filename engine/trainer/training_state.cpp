#include "engine/trainer/training_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

using nlohmann::ordered_json;

constexpr int kStateVersion = 3;

// Doubles round-trip: the library prints the shortest digits that read back to the same bits.
ordered_json optional_number(const std::optional<double>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

std::optional<double> optional_number(const ordered_json& value) {
  return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
}

ordered_json to_json(const std::optional<ValidationSummary>& summary) {
  if (!summary) return nullptr;
  ordered_json json{{"epoch", summary->epoch}, {"step", summary->step}};
  for (const auto& [name, value] : summary->measures) json[name] = optional_number(value);
  return json;
}

std::optional<ValidationSummary> summary_from_json(const ordered_json& json) {
  if (json.is_null()) return std::nullopt;
  ValidationSummary summary{.epoch = json.at("epoch").get<std::int64_t>(),
                            .step = json.at("step").get<std::int64_t>(),
                            .measures = {}};
  for (const auto& [name, value] : json.items())
    if (name != "epoch" && name != "step") summary.measures[name] = optional_number(value);
  return summary;
}

ordered_json to_json(const EpochSums& sums) {
  ordered_json json;
  for (std::size_t i = 0; i < sums.loss.names.size(); ++i) json[sums.loss.names[i]] = sums.loss.values[i];
  json["grad_norm"] = sums.grad_norm;
  json["samples"] = sums.samples;
  json["good_steps"] = sums.good_steps;
  json["bad_steps"] = sums.bad_steps;
  json["overflow_steps"] = sums.overflow_steps;
  json["samples_seen"] = sums.samples_seen;
  json["seconds"] = sums.seconds;
  return json;
}

EpochSums sums_from_json(const ordered_json& json, LossNames losses) {
  LossValues loss{.names = losses};
  for (std::size_t i = 0; i < losses.size(); ++i) loss.values[i] = json.at(losses[i]).get<double>();
  return {.loss = loss,
          .grad_norm = json.at("grad_norm").get<double>(),
          .samples = json.at("samples").get<std::int64_t>(),
          .good_steps = json.at("good_steps").get<std::int64_t>(),
          .bad_steps = json.at("bad_steps").get<std::int64_t>(),
          .overflow_steps = json.at("overflow_steps").get<std::int64_t>(),
          .samples_seen = json.at("samples_seen").get<std::int64_t>(),
          .seconds = json.at("seconds").get<double>()};
}

RunPosition position_from_json(const ordered_json& json, LossNames losses) {
  return {.epoch = json.at("epochs_done").get<std::int64_t>(),
          .batch = json.at("batch").get<std::int64_t>(),
          .step = json.at("step").get<std::int64_t>(),
          .optimizer_steps = json.at("optimizer_steps").get<std::int64_t>(),
          .bad_steps = json.at("bad_steps").get<std::int64_t>(),
          .bad_steps_in_a_row = json.at("bad_steps_in_a_row").get<std::int64_t>(),
          .overflow_steps = json.at("overflow_steps").get<std::int64_t>(),
          .loss_scale = json.at("loss_scale").get<double>(),
          .loss_scale_steps = json.at("loss_scale_steps").get<std::int64_t>(),
          .lr = json.at("lr").get<double>(),
          .finished = json.at("finished").get<bool>(),
          .extension = {.from = json.at("extended_from").get<std::int64_t>(),
                        .to = json.at("extended_to").get<std::int64_t>()},
          .sums = sums_from_json(json.at("sums"), losses),
          .best = summary_from_json(json.at("best")),
          .last = summary_from_json(json.at("last"))};
}

void check_same(const ResumeState& state, const char* what, const char* key, const std::string& ours) {
  const auto theirs = state.header.at(key).get<std::string>();
  if (theirs != ours) {
    throw DataError(
        "{}: was saved with {} {}, this run has {}; resume with the options and data it was started with, or "
        "start afresh in another --run_dir",
        state.path.string(), what, theirs, ours);
  }
}

/// A tensor of one parameter in a saved state.
struct SavedTensor {
  std::string name;
  Tensor tensor;
};

std::array<SavedTensor, 3> saved_tensors(const HostParameters& parameters, ParameterId id) {
  const std::string& name = parameters.specs()[static_cast<std::size_t>(id)].name;
  return {{{"master/" + name, parameters.master(id)},
           {"exp_avg/" + name, parameters.exp_avg(id)},
           {"exp_avg_sq/" + name, parameters.exp_avg_sq(id)}}};
}

std::span<std::byte> bytes_of(const Tensor& tensor) {
  VOCA_CHECK(tensor.device == DeviceKind::kCpu);
  return {static_cast<std::byte*>(tensor.data), tensor.bytes()};
}

}  // namespace

ordered_json state_header(const RunPosition& progress, const RunIdentity& identity) {
  ordered_json header;
  header["version"] = kStateVersion;
  header["config_hash"] = identity.config_hash;
  header["split_hash"] = identity.split_hash;
  header["progress"] = {{"epochs_done", progress.epoch},
                        {"batch", progress.batch},
                        {"step", progress.step},
                        {"optimizer_steps", progress.optimizer_steps},
                        {"bad_steps", progress.bad_steps},
                        {"bad_steps_in_a_row", progress.bad_steps_in_a_row},
                        {"overflow_steps", progress.overflow_steps},
                        {"loss_scale", progress.loss_scale},
                        {"loss_scale_steps", progress.loss_scale_steps},
                        {"lr", progress.lr},
                        {"finished", progress.finished},
                        {"extended_from", progress.extension.from},
                        {"extended_to", progress.extension.to},
                        {"sums", to_json(progress.sums)},
                        {"best", to_json(progress.best)},
                        {"last", to_json(progress.last)}};
  return header;
}

RunPosition position_of(const ordered_json& header, LossNames losses) {
  return position_from_json(header.at("progress"), losses);
}

std::vector<ResumeSection> state_sections(const HostParameters& parameters) {
  std::vector<ResumeSection> sections;
  for (ParameterId id = 0; id < parameters.count(); ++id) {
    for (const SavedTensor& saved : saved_tensors(parameters, id))
      sections.push_back({saved.name, saved.tensor.dtype, bytes_of(saved.tensor)});
  }
  return sections;
}

RunPosition restore_state(const ResumeState& state, const RunIdentity& identity, LossNames losses,
                          ParameterStore& parameters) {
  try {
    if (const int version = state.header.at("version").get<int>(); version != kStateVersion) {
      throw DataError(
          "{}: is a training state of version {}, this program reads {}; finish the run with the program "
          "that began it, or start a new one from its checkpoint with --init_from",
          state.path.string(), version, kStateVersion);
    }
    check_same(state, "configuration", "config_hash", identity.config_hash);
    check_same(state, "split", "split_hash", identity.split_hash);
    RunPosition progress = position_of(state.header, losses);
    const HostParameters host(parameters);
    for (ParameterId id = 0; id < host.count(); ++id) {
      for (const SavedTensor& saved : saved_tensors(host, id))
        state.copy_section(saved.name, saved.tensor.dtype, bytes_of(saved.tensor));
    }
    host.write_back(parameters);
    return progress;
  } catch (const nlohmann::json::exception& error) {
    throw DataError("{}: is not a training state of this program: {}", state.path.string(), error.what());
  }
}

bool extend(RunPosition& progress, const TrainerConfig& config, const std::string& source) {
  const std::int64_t planned = std::max(config.epochs, progress.extension.to);
  const std::int64_t wanted = config.epochs + config.extend_epochs;
  if (wanted == planned) return false;
  if (wanted < planned) {
    throw UsageError(
        "--extend_epochs: is {}, and the run of {} was extended to {} epochs; continue it with {}",
        config.extend_epochs, source, planned, planned - config.epochs);
  }
  if (progress.epoch < planned) {
    throw UsageError("--extend_epochs {}: the run of {} has done {} of its {} epochs; finish them first ({})",
                     config.extend_epochs, source, progress.epoch, planned,
                     planned == config.epochs
                         ? "without the option"
                         : fmt::format("with --extend_epochs {}", planned - config.epochs));
  }
  progress.extension = {.from = planned, .to = wanted};
  progress.finished = false;
  return true;
}

}  // namespace voca::engine
