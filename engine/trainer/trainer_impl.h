#pragma once

// What Trainer is made of. Internal to the trainer: its steps and epochs are in trainer.cpp, what it saves
// and restores in trainer_state.cpp.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "engine/checkpoint/resume/resume_state.h"
#include "engine/trainer/evaluator.h"
#include "engine/trainer/step_runner.h"
#include "engine/trainer/trainer.h"
#include "engine/trainer/training_state.h"

namespace voca::engine {

struct Trainer::Impl {
  using Clock = std::chrono::steady_clock;

  Impl(const TrainerConfig& trainer_config, const Model& trained, const Task& trained_for,
       BatchSource& train_source, BatchSource* val, Device& device, TrainingObserver& told, Ranks job);

  TrainingResult run();

  // Steps: queued on the device, and accounted for once their results have arrived.
  void queue_step();
  void settle(std::size_t left_queued = 0);
  [[nodiscard]] std::size_t steps_ahead() const;
  StepRecord account(const StepNumbers& numbers);
  void report(const StepRecord& record, const StepNumbers& numbers);
  [[noreturn]] void give_up(const StepRecord& record) const;

  void train_epoch();
  void finish_epoch();
  [[nodiscard]] EpochRecord epoch_record() const;
  void evaluate(EpochRecord& record);
  void select(EpochRecord& record);

  [[nodiscard]] std::int64_t total_epochs() const { return config.epochs + config.extend_epochs; }
  [[nodiscard]] bool at_max_steps() const {
    return config.max_steps > 0 && progress.step >= config.max_steps;
  }
  [[nodiscard]] bool epoch_is_trained() const { return progress.batch == batches_per_epoch; }
  [[nodiscard]] bool done() const {
    return progress.epoch == total_epochs() || (at_max_steps() && (progress.finished || progress.batch == 0));
  }
  [[nodiscard]] bool state_is_due_after_step() const {
    const Interval& every = config.checkpoint_every;
    return every.in_steps && every.count > 0 && progress.step % every.count == 0;
  }
  [[nodiscard]] bool state_is_due_after_epoch() const {
    const Interval& every = config.checkpoint_every;
    return state_is_due_after_step() ||
           (!every.in_steps && every.count > 0 && progress.epoch % every.count == 0);
  }
  [[nodiscard]] ScheduleOptions schedule_options(const Extension& extension) const;
  [[nodiscard]] EpochSums no_sums() const { return {.loss = {.names = model.signature().losses}}; }
  [[nodiscard]] RunIdentity identity() const { return {config.config_hash, config.split_hash}; }
  [[nodiscard]] TrainedModel trained_model() const;
  [[nodiscard]] RunPosition position_to_save() const;
  void save();
  void continue_from(const RunPosition& state);
  void restore(const ResumeState& state);
  void start_together();
  const char* own_stop_reason();
  void stop_if_asked();
  [[noreturn]] void interrupt();

  TrainerConfig config;
  Ranks ranks;
  const Model& model;
  const Task& task;
  BatchSource& train;
  TrainingObserver& observer;
  std::int64_t batches_per_epoch;
  std::int64_t steps_per_epoch;
  Schedule schedule;
  Workspace workspace;
  Optimizer optimizer;
  StepRunner steps;
  std::optional<Evaluator> evaluator;
  std::optional<ResumeStore> store;
  StopReason stop_reason;
  const char* stopped_by = nullptr;  ///< return value of stop_reason
  RunPosition progress;
  Clock::time_point timed_from;  ///< start of the time attributed to the next collected step
  bool saved = false;            ///< the current position has been saved
};

}  // namespace voca::engine
