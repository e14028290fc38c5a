#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "engine/core/parameters.h"
#include "engine/trainer/evaluator.h"

namespace voca::engine {

struct LossValues {
  double total = 0;
  double classification = 0;
  double contrastive = 0;
};

/// One optimiser step.
struct StepRecord {
  std::int64_t epoch = 0;          ///< from 1
  std::int64_t step = 0;           ///< steps done since the start of the run, this one included
  std::int64_t step_in_epoch = 0;  ///< the same within the epoch
  std::int64_t steps_per_epoch = 0;
  LossValues loss;  ///< mean over the step's samples
  double lr = 0;
  double grad_norm = 0;             ///< before clipping; NaN or infinite when the step was skipped
  bool skipped = false;             ///< something was not finite: nothing was updated
  double loss_scale = 1;            ///< of the next step
  std::int64_t bad_steps = 0;       ///< skipped since the start of the run, overflows of the loss scale apart
  std::int64_t overflow_steps = 0;  ///< those
  std::int64_t bad_samples = 0;     ///< found by this process
  double samples_per_s = 0;         ///< since this process entered the epoch
};

/// What is kept of an evaluation on val after its epoch: what selects, and what checkpoints carry.
struct ValidationSummary {
  std::int64_t epoch = 0;  ///< from 1
  std::int64_t step = 0;
  std::optional<double> loss;
  std::optional<double> acc;  ///< at 0.5, or of the likeliest class
  std::optional<double> auc;
  std::optional<double> ap;         ///< of real; two classes only
  std::optional<double> threshold;  ///< fitted on val
};

/// One epoch, or the part of it that --max_steps allowed.
struct EpochRecord {
  std::int64_t epoch = 0;                    ///< from 1
  std::int64_t step = 0;                     ///< steps done since the start of the run
  LossValues loss;                           ///< means over the samples of the epoch's good steps
  double lr = 0;                             ///< of the epoch's last step
  double grad_norm = 0;                      ///< mean over the good steps
  std::int64_t samples = 0;                  ///< trained on in good steps
  std::int64_t bad_steps = 0;                ///< of this epoch
  std::int64_t overflow_steps = 0;           ///< of this epoch
  std::int64_t bad_samples = 0;              ///< found by this process
  std::optional<Metrics> val;                ///< absent where the epoch was not evaluated
  std::optional<ValidationSummary> summary;  ///< of the same
  bool best = false;                         ///< the best so far by --select_by
  double samples_per_s = 0;                  ///< in training
  double seconds = 0;                        ///< training and evaluation
};

/// Lines of metrics.jsonl (`kind` "step" and "epoch"). What is not finite or not defined is null. Everything
/// but `samples_per_s`, `seconds` and, which each process counts anew, `bad_samples` is the same in every run
/// of the same configuration, interrupted or not.
[[nodiscard]] nlohmann::ordered_json to_json(const StepRecord& record);
[[nodiscard]] nlohmann::ordered_json to_json(const EpochRecord& record);

/// What a checkpoint for people is written of.
struct TrainedModel {
  const ParameterStore& parameters;
  std::int64_t optimizer_steps = 0;  ///< AdamW's t
  std::int64_t epoch = 0;            ///< last epoch trained, from 1
  std::int64_t step = 0;
  double lr = 0;
  std::optional<ValidationSummary> val;  ///< of these weights; absent without a validation split
};

/// Who is told. Nothing here changes the run; what throws ends it.
class TrainingObserver {
 public:
  TrainingObserver() = default;
  TrainingObserver(const TrainingObserver&) = delete;
  TrainingObserver& operator=(const TrainingObserver&) = delete;
  virtual ~TrainingObserver() = default;

  /// Every step, for a progress line. Must not allocate.
  virtual void on_progress(const StepRecord& /*record*/) {}
  /// Every --log_every steps, and every skipped step, for metrics.jsonl and TensorBoard.
  virtual void on_step(const StepRecord& /*record*/) {}
  /// After the evaluation of the epoch, if it has one, and after on_best.
  virtual void on_epoch(const EpochRecord& /*record*/) {}
  /// One line for people: what was resumed, what was skipped.
  virtual void on_message(const std::string& /*message*/) {}
  /// run() begins; 0 and 0 in a fresh run. Records of the ends of the first `epochs` epochs and of the first
  /// `step` steps stand; later ones, and those of the test, are void and will come again.
  virtual void on_start(std::int64_t /*epochs*/, std::int64_t /*step*/) {}
  /// A state follows that has passed everything told so far: what is recorded of it must outlive a power cut.
  virtual void before_state() {}
  /// The best on val so far (--save_path). May come again for the same weights after a crash.
  virtual void on_best(const TrainedModel& /*model*/) {}
  /// After the last step (--save_last). Comes again when a finished run is resumed.
  virtual void on_last(const TrainedModel& /*model*/) {}
};

}  // namespace voca::engine
