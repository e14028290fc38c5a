#include "tools/run_reporter.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "engine/base/terminal.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "engine/core/parameters.h"

namespace voca::tools {

using nlohmann::ordered_json;

namespace {

/// Parameters and their moments in registration order, as views into `parameters`.
std::vector<engine::ParameterState> parameter_states(const engine::HostParameters& parameters) {
  const auto elements = [](const engine::Tensor& tensor) {
    return std::span<const float>(tensor.as<float>(), static_cast<std::size_t>(tensor.elements()));
  };
  std::vector<engine::ParameterState> states;
  for (engine::ParameterId id = 0; id < parameters.count(); ++id) {
    const engine::ParameterSpec& spec = parameters.specs()[static_cast<std::size_t>(id)];
    const std::span<const std::int64_t> extents = spec.shape.extents();
    states.push_back({.name = spec.name,
                      .shape = {extents.begin(), extents.end()},
                      .weights = elements(parameters.master(id)),
                      .exp_avg = elements(parameters.exp_avg(id)),
                      .exp_avg_sq = elements(parameters.exp_avg_sq(id))});
  }
  return states;
}

std::string rounded(const std::optional<double>& value) {
  return value ? fmt::format("{:.4f}", *value) : "undefined";
}

}  // namespace

RunReporter::RunReporter(engine::RunFolder& folder, engine::ProgressBar& progress, CheckpointFacts facts,
                         std::int64_t epochs, std::int64_t total_steps)
    : folder_(folder),
      progress_(progress),
      facts_(std::move(facts)),
      epochs_(epochs),
      total_steps_(total_steps) {}

void RunReporter::on_start(std::int64_t epochs, std::int64_t step) {
  if (step > 0) {
    folder_.resume_metrics(epochs, step);
  } else {
    folder_.start_metrics();
  }
  tensorboard_.emplace(folder_.path());
  if (step > 0) tensorboard_->forget_from(step + 1);
  progress_.start("train", step);
}

void RunReporter::on_progress(const engine::StepRecord& record) {
  const auto phase = fmt::format_to_n(phase_.data(), phase_.size(), "epoch {}/{}", record.epoch, epochs_);
  progress_.update({.done = record.step,
                    .total = total_steps_,
                    .phase = {phase_.data(), std::min(phase.size, phase_.size())},
                    .samples_per_s = record.samples_per_s,
                    .loss = record.loss.total(),
                    .lr = record.lr});
  say_expected_time(record.step);
}

void RunReporter::say_expected_time(std::int64_t step) {
  const auto now = Clock::now();
  if (timed_from_ == 0) {  // the first step includes one-time work
    timed_from_ = step;
    timed_since_ = now;
  }
  const std::int64_t timed = step - timed_from_;
  if (timed != kTimedSteps || step >= total_steps_) return;
  const double per_step =
      std::chrono::duration<double>(now - timed_since_).count() / static_cast<double>(timed);
  std::array<char, 128> line{};
  const auto end =
      fmt::format_to_n(line.data(), line.size(), "expected time: {} for {} steps of {:.3g} s",
                       engine::format_duration(per_step * static_cast<double>(total_steps_ - step)),
                       total_steps_ - step, per_step);
  progress_.message({line.data(), std::min(end.size, line.size())});
}

void RunReporter::on_step(const engine::StepRecord& record) {
  this->record(engine::to_json(record));
}

void RunReporter::on_epoch(const engine::EpochRecord& record) {
  this->record(engine::to_json(record));
  std::string text = fmt::format("epoch {}/{}  loss {:.4f}", record.epoch, epochs_, record.loss.total());
  if (record.summary) {
    text += fmt::format("  val{0}loss{0}{1}  acc{0}{2}  auc{0}{3}", engine::kFixedSpace,
                        rounded(record.summary->measure("loss")), rounded(record.summary->measure("acc")),
                        rounded(record.summary->measure("auc")));
    if (record.best) text += "  best";
  }
  // Optional: the progress line and metrics.jsonl also have it. Space for "best" is reserved, so that all
  // lines look alike.
  const std::string speed = fmt::format("  {:.0f} samples/s", record.samples_per_s);
  const int columns = progress_.columns();
  const std::size_t best = record.summary && !record.best ? std::string_view("  best").size() : 0;
  if (text.size() + best + speed.size() <= static_cast<std::size_t>(columns)) text += speed;
  progress_.message(engine::wrapped(text, columns, 2));
}

void RunReporter::on_message(const std::string& message) {
  if (message.starts_with("warning: ")) return progress_.warning(message);
  progress_.message(message);
}

void RunReporter::before_state() {
  folder_.sync();
  tensorboard_->sync();
}

void RunReporter::on_best(const engine::TrainedModel& model) {
  write_checkpoint(facts_.save_path, model);
}

void RunReporter::on_last(const engine::TrainedModel& model) {
  progress_.finish();
  write_checkpoint(facts_.save_last, model);
}

void RunReporter::on_test(const ordered_json& line) {
  record(line);
}

void RunReporter::record(const ordered_json& line) {
  folder_.append(line);
  tensorboard_->write(line);
}

void RunReporter::write_checkpoint(const std::filesystem::path& path,
                                   const engine::TrainedModel& model) const {
  if (path.empty()) return;
  ordered_json facts = facts_.engine;
  if (const auto threshold = model.val ? model.val->measure("threshold") : std::nullopt) {
    facts["threshold"] = *threshold;
    facts["threshold_by"] = facts_.threshold_by;
  }
  const engine::HostParameters on_host(model.parameters);
  const std::vector<engine::ParameterState> parameters = parameter_states(on_host);
  if (path.extension() == ".safetensors") {
    std::vector<engine::NamedTensor> weights;
    weights.reserve(parameters.size());
    for (const engine::ParameterState& parameter : parameters)
      weights.push_back({parameter.name, engine::borrow_tensor(parameter.weights, parameter.shape)});
    engine::write_weights(path, weights, facts_.config, facts);
    return;
  }
  engine::TrainingCheckpoint checkpoint;
  checkpoint.epoch = model.epoch;
  checkpoint.parameters = parameters;
  checkpoint.optimizer = {.step = model.optimizer_steps, .lr = model.lr, .options = facts_.adamw};
  checkpoint.config = facts_.config;
  checkpoint.engine = std::move(facts);
  if (model.val) {
    checkpoint.val_acc = model.val->measure("acc");
    checkpoint.val_auc = model.val->measure("auc");
  }
  engine::write_training_checkpoint(path, checkpoint);
}

}  // namespace voca::tools
