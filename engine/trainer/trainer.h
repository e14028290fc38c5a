#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <utility>

#include "engine/checkpoint/resume/resume_state.h"
#include "engine/core/batch.h"
#include "engine/core/device.h"
#include "engine/core/model.h"
#include "engine/core/task.h"
#include "engine/trainer/evaluator.h"
#include "engine/trainer/memory_plan.h"
#include "engine/trainer/optimizer.h"
#include "engine/trainer/ranks.h"
#include "engine/trainer/records.h"
#include "engine/trainer/run_position.h"
#include "engine/trainer/schedule.h"
#include "engine/trainer/step_runner.h"
#include "engine/trainer/trainer_config.h"

namespace voca::engine {

/// Outcome of a run.
struct TrainingResult {
  std::int64_t epochs = 0;      ///< completed
  std::int64_t last_epoch = 0;  ///< last epoch trained in, from 1; incomplete if --max_steps ended it
  std::int64_t step = 0;
  std::int64_t bad_steps = 0;
  std::int64_t overflow_steps = 0;  ///< skipped while fp16's loss scale adapted
  std::optional<ValidationSummary> best;
  std::optional<ValidationSummary> last;
};

/// Trains a model. With several ranks, each has a trainer with its own slice of every global batch and of the
/// validation split; gradients and losses are those of the global batch on all ranks, and decisions are taken
/// jointly. All ranks start from rank 0's parameters; only rank 0's observer and checkpoint folder are used.
///
/// Runs with the same configuration, data and build are bitwise identical, however often they were stopped or
/// killed and resumed (docs/determinism.md).
///
///   Trainer trainer(config, model, task, train, &val, device, observer);   // allocates all memory
///   trainer.parameters().initialise(seed);                           // or load weights
///   trainer.resume_latest();                                         // --resume auto
///   trainer.run();
class Trainer {
 public:
  /// Device memory that a trainer will allocate; `val` is null without validation.
  [[nodiscard]] static MemoryRequest memory_request(const TrainerConfig& config, const BatchSource& train,
                                                    const BatchSource* val, int world_size = 1);

  /// Validates the configuration and allocates all memory. Throws UsageError naming the option that is out of
  /// range or when a split is empty (val: unless no_val), and Workspace's error when the memory does not fit.
  Trainer(const TrainerConfig& config, const Model& model, const Task& task, BatchSource& train,
          BatchSource* val, Device& device, TrainingObserver& observer, Ranks ranks = {});
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  [[nodiscard]] ParameterStore& parameters() { return workspace_.parameters(); }
  [[nodiscard]] Workspace& workspace() { return workspace_; }

  /// Continues from the newest good state of the checkpoint folder; returns false and changes nothing if
  /// there is none. A damaged state is skipped with a message. Call this and resume_from() on rank 0 only.
  /// Throws DataError naming both hashes when the state is of another configuration or split, UsageError
  /// where extend() does.
  bool resume_latest();
  /// Continues from the given state (a file or a folder of states). Throws DataError when there is none or it
  /// is damaged.
  void resume_from(const std::filesystem::path& path);

  /// Best on val so far; before run(), that of the resumed run.
  [[nodiscard]] const std::optional<ValidationSummary>& best() const { return progress_.best; }
  /// Makes the selection ignore all earlier epochs. Call it on rank 0, before run().
  void forget_best() { progress_.best.reset(); }
  /// Completed epochs; before run(), those of the resumed run.
  [[nodiscard]] std::int64_t epochs_done() const { return progress_.epoch; }
  /// Whether run() has nothing left to train.
  [[nodiscard]] bool finished() const {
    return progress_.epoch == total_epochs() ||
           (at_max_steps() && (progress_.finished || progress_.batch == 0));
  }

  /// Called after every step and between batches of an evaluation; returns the reason to stop at once
  /// ("SIGTERM"), or null.
  using StopReason = std::function<const char*()>;
  void set_stop_reason(StopReason reason) { stop_reason_ = std::move(reason); }

  /// Trains to the end. Throws Interrupted after saving a state when asked to stop; DataError naming the
  /// first parameter with a non-finite gradient after max_bad_steps bad steps in a row.
  TrainingResult run();

 private:
  using Clock = std::chrono::steady_clock;

  // Steps and epochs are in trainer.cpp, what is saved and restored in trainer_resume.cpp.

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

  [[nodiscard]] std::int64_t total_epochs() const { return config_.epochs + config_.extend_epochs; }
  [[nodiscard]] bool at_max_steps() const {
    return config_.max_steps > 0 && progress_.step >= config_.max_steps;
  }
  [[nodiscard]] bool epoch_is_trained() const { return progress_.batch == batches_per_epoch_; }
  [[nodiscard]] bool state_is_due_after_step() const {
    const Interval& every = config_.checkpoint_every;
    return every.in_steps && every.count > 0 && progress_.step % every.count == 0;
  }
  [[nodiscard]] bool state_is_due_after_epoch() const {
    const Interval& every = config_.checkpoint_every;
    return state_is_due_after_step() ||
           (!every.in_steps && every.count > 0 && progress_.epoch % every.count == 0);
  }
  [[nodiscard]] ScheduleOptions schedule_options(const Extension& extension) const;
  [[nodiscard]] EpochSums no_sums() const { return {.loss = {.names = model_.signature().losses}}; }
  [[nodiscard]] RunIdentity identity() const { return {config_.config_hash, config_.split_hash}; }
  [[nodiscard]] TrainedModel trained_model() const;
  [[nodiscard]] RunPosition position_to_save() const;
  void save();
  void continue_from(const RunPosition& state);
  void restore(const ResumeState& state);
  void start_together();
  const char* own_stop_reason();
  void stop_if_asked();
  [[noreturn]] void interrupt();

  TrainerConfig config_;
  Ranks ranks_;
  const Model& model_;
  const Task& task_;
  BatchSource& train_;
  TrainingObserver& observer_;
  std::int64_t batches_per_epoch_;
  std::int64_t steps_per_epoch_;
  Schedule schedule_;
  Workspace workspace_;
  Optimizer optimizer_;
  StepRunner steps_;
  std::optional<Evaluator> evaluator_;
  std::optional<ResumeStore> store_;
  StopReason stop_reason_;
  const char* stopped_by_ = nullptr;  ///< return value of stop_reason_
  RunPosition progress_;
  Clock::time_point timed_from_;  ///< start of the time attributed to the next collected step
  bool saved_ = false;            ///< the current position has been saved
};

}  // namespace voca::engine
