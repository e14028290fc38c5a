#pragma once

#include <fmt/format.h>

#include <cstring>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/core/host_tensor.h"
#include "engine/trainer/trainer.h"
#include "model/tasks/detection.h"
#include "tests/engine/support/toy.h"

namespace voca::engine::test {

/// Of a tensor on the CPU.
inline std::string bytes_of(const Tensor& tensor) {
  VOCA_CHECK(tensor.device == DeviceKind::kCpu);
  return {static_cast<const char*>(tensor.data), tensor.bytes()};
}

/// Weights and moments to the last bit.
inline std::string bits_of(const ParameterStore& parameters) {
  std::string bytes;
  for (const Tensor& buffer : {parameters.masters(), parameters.exp_avgs(), parameters.exp_avg_sqs()})
    bytes += bytes_of(HostTensor(parameters.device(), buffer).tensor());
  return bytes;
}

/// Keeps of a run what a run folder would keep, and the order in which it was told. One recorder follows a
/// run through all the processes that take it up.
class Recorder : public TrainingObserver {
 public:
  /// A line of metrics.jsonl without what depends on the clock.
  struct Line {
    std::string kind;
    std::int64_t epoch = 0;
    std::int64_t step = 0;
    std::string text;
    bool operator==(const Line&) const = default;
    // NOLINTNEXTLINE(readability-identifier-naming): GoogleTest's name
    friend void PrintTo(const Line& line, std::ostream* out) { *out << line.text; }
  };
  std::vector<Line> lines;
  std::vector<EpochRecord> epochs;
  std::vector<std::string> calls;
  std::vector<std::string> messages;
  std::string best_bits;
  std::string last_bits;
  std::optional<TrainedModel> last_told;  ///< its parameters live as long as the trainer
  std::function<void(const StepRecord&)> progress;
  std::function<void(const std::string& call)> after_call;
  std::function<void()> before_saving;

  void on_start(std::int64_t epochs_done, std::int64_t step) override {
    std::erase_if(lines, [&](const Line& line) {
      return line.kind == "step" ? line.step > step : line.epoch > epochs_done;
    });
    std::erase_if(epochs, [&](const EpochRecord& record) { return record.epoch > epochs_done; });
    call(fmt::format("start {} {}", epochs_done, step));
  }
  void on_progress(const StepRecord& record) override {
    if (progress) progress(record);
  }
  void on_step(const StepRecord& record) override {
    add(to_json(record));
    call(fmt::format("step {}", record.step));
  }
  void on_epoch(const EpochRecord& record) override {
    epochs.push_back(record);
    add(to_json(record));
    call(fmt::format("epoch {}", record.epoch));
  }
  void on_message(const std::string& message) override { messages.push_back(message); }
  void before_state() override {
    if (before_saving) before_saving();
  }
  void on_best(const TrainedModel& model) override {
    best_bits = bits_of(model.parameters);
    call(fmt::format("best {}", model.epoch));
  }
  void on_last(const TrainedModel& model) override {
    last_bits = bits_of(model.parameters);
    last_told.emplace(model);
    call(fmt::format("last {}", model.epoch));
  }

 private:
  void call(const std::string& name) {
    calls.push_back(name);
    if (after_call) after_call(name);
  }
  void add(nlohmann::ordered_json line) {
    line.erase("samples_per_s");
    line.erase("seconds");
    lines.push_back({line["kind"], line["epoch"], line["step"], line.dump()});
  }
};

/// A run of three epochs of six batches, evaluated after each.
inline TrainerConfig toy_config() {
  TrainerConfig config;
  config.epochs = 3;
  config.lr = 0.02;
  config.warmup_epochs = 1;
  config.schedule = ScheduleKind::kStep;
  config.log_every = 1;
  config.select_by = "auc";
  config.seed = 5;
  config.config_hash = "c0ffee";
  config.split_hash = "5eed";
  return config;
}

inline ToySource::Options toy_training() {
  return {};
}

inline ToySource::Options toy_validation() {
  return {.samples = 11, .batch_size = 3, .seed = 2, .shuffle = false};
}

/// One process of a run: the model, its sources and the trainer.
class ToyRun {
 public:
  struct Setup {
    std::int64_t outputs = 1;
    double dropout = 0.25;
    ToySource::Options train = toy_training();
    ToySource::Options val = toy_validation();
  };

  ToyRun(const TrainerConfig& config, Recorder& recorder) : ToyRun(config, recorder, Setup()) {}
  ToyRun(const TrainerConfig& config, Recorder& recorder, const Setup& setup)
      : model(setup.outputs, setup.dropout),
        task(setup.outputs),
        train(of_type(setup.train, config, setup.outputs)),
        val(of_type(setup.val, config, setup.outputs)),
        device(make_cpu_device(1)),
        trainer(config, model, task, train, config.no_val ? nullptr : &val, *device, recorder) {
    trainer.parameters().initialise(config.seed);
  }

  ToyModel model;
  model::DetectionTask task;
  ToySource train;
  ToySource val;
  std::unique_ptr<Device> device;
  Trainer trainer;

 private:
  static ToySource::Options of_type(ToySource::Options options, const TrainerConfig& config,
                                    std::int64_t outputs) {
    options.compute_type = config.compute_type;
    options.classes = outputs == 1 ? 2 : outputs;
    return options;
  }
};

}  // namespace voca::engine::test
