#include "engine/trainer/run_position.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

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

/// Calls visit(name in the header, number) for every number of the sums.
template <typename Sums, typename Visit>
void visit_sums(Sums& sums, const Visit& visit) {
  for (std::size_t i = 0; i < sums.loss.names.size(); ++i) visit(sums.loss.names[i], sums.loss.values[i]);
  visit("grad_norm", sums.grad_norm);
  visit("samples", sums.samples);
  visit("good_steps", sums.good_steps);
  visit("bad_steps", sums.bad_steps);
  visit("overflow_steps", sums.overflow_steps);
  visit("samples_seen", sums.samples_seen);
  visit("seconds", sums.seconds);
}

/// The same for the numbers of a position itself.
template <typename Position, typename Visit>
void visit_position(Position& position, const Visit& visit) {
  visit("epochs_done", position.epoch);
  visit("batch", position.batch);
  visit("step", position.step);
  visit("optimizer_steps", position.optimizer.steps);
  visit("bad_steps", position.bad_steps);
  visit("bad_steps_in_a_row", position.bad_steps_in_a_row);
  visit("overflow_steps", position.overflow_steps);
  visit("loss_scale", position.optimizer.loss_scale);
  visit("loss_scale_steps", position.optimizer.good_steps);
  visit("lr", position.lr);
  visit("finished", position.finished);
  visit("extended_from", position.extension.from);
  visit("extended_to", position.extension.to);
}

/// Visitor that writes numbers into `json`.
auto put_into(ordered_json& json) {
  return [&json](const char* name, const auto& number) { json[name] = number; };
}

/// Visitor that reads numbers from `json`.
auto take_from(const ordered_json& json) {
  return [&json](const char* name, auto& number) { json.at(name).get_to(number); };
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

/// Throws DataError for a number that no run comes to: the header has no meaning then, whatever its digest.
void check_plausible(const ResumeState& state, const RunPosition& position) {
  const auto refuse = [&](const char* name, const auto& number) {
    throw DataError("{}: is not a training state of this program: its {} is {}", state.path.string(), name,
                    number);
  };
  visit_position(position, [&](const char* name, const auto& number) {
    constexpr std::int64_t kMaxCount = std::int64_t{1} << 53;
    using Number = std::decay_t<decltype(number)>;
    if constexpr (std::is_floating_point_v<Number>) {
      if (!std::isfinite(number) || number < 0) refuse(name, number);
    } else if constexpr (!std::is_same_v<Number, bool>) {
      if (number < 0 || static_cast<std::int64_t>(number) > kMaxCount) refuse(name, number);
    }
  });
}

/// The tensors of one parameter in a saved state, by name.
std::array<std::pair<std::string, Tensor>, 3> saved_tensors(const HostParameters& parameters,
                                                            ParameterId id) {
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
  ordered_json& json = header["progress"];
  visit_position(progress, put_into(json));
  visit_sums(progress.sums, put_into(json["sums"]));
  json["best"] = to_json(progress.best);
  json["last"] = to_json(progress.last);
  return header;
}

RunPosition position_of(const ordered_json& header, LossNames losses) {
  const ordered_json& json = header.at("progress");
  RunPosition position;
  visit_position(position, take_from(json));
  position.sums.loss.names = losses;
  visit_sums(position.sums, take_from(json.at("sums")));
  position.best = summary_from_json(json.at("best"));
  position.last = summary_from_json(json.at("last"));
  return position;
}

std::vector<NamedTensor> state_tensors(const HostParameters& parameters) {
  std::vector<NamedTensor> tensors;
  for (ParameterId id = 0; id < parameters.count(); ++id) {
    for (const auto& [name, tensor] : saved_tensors(parameters, id)) {
      const auto extents = tensor.shape.extents();
      tensors.push_back({name, contiguous_tensor(tensor.dtype, {extents.begin(), extents.end()},
                                                 borrow_storage(bytes_of(tensor)))});
    }
  }
  return tensors;
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
    check_plausible(state, progress);
    const HostParameters host(parameters);
    for (ParameterId id = 0; id < host.count(); ++id) {
      for (const auto& [name, tensor] : saved_tensors(host, id))
        state.copy_tensor(name, tensor.dtype, bytes_of(tensor));
    }
    host.write_back(parameters);
    return progress;
  } catch (const nlohmann::json::exception&) {
    throw DataError(
        "{}: is not a training state of this program: its header lacks an entry or has one of another type",
        state.path.string());
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
