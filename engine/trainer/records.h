#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/core/model.h"
#include "engine/core/parameters.h"
#include "engine/core/task.h"

namespace voca::engine {

/// A value for each of a model's losses. Allocates nothing.
struct LossValues {
  LossNames names;
  std::array<double, kMaxLosses> values{};

  /// The loss that is minimised.
  [[nodiscard]] double total() const { return values[0]; }
  /// Throws InternalError if there is none of this name.
  [[nodiscard]] double at(std::string_view name) const;
  /// Adds `weight` times each value of `other`, and takes its names.
  void add(double weight, const LossValues& other);
  /// Each value divided by `divisor`; NaN if it is not positive.
  [[nodiscard]] LossValues over(double divisor) const;
};

/// Record of one optimiser step.
struct StepRecord {
  std::int64_t epoch = 0;          ///< from 1
  std::int64_t step = 0;           ///< steps since the start of the run, including this one
  std::int64_t step_in_epoch = 0;  ///< steps since the start of the epoch, including this one
  std::int64_t steps_per_epoch = 0;
  LossValues loss;  ///< mean over the step's samples
  double lr = 0;
  double grad_norm = 0;             ///< before clipping; NaN or infinite if a gradient was not finite
  bool skipped = false;             ///< something was not finite: nothing was updated
  double loss_scale = 1;            ///< for the next step
  std::int64_t bad_steps = 0;       ///< skipped since the start of the run, loss-scale overflows excluded
  std::int64_t overflow_steps = 0;  ///< skipped because of a loss-scale overflow
  std::int64_t bad_samples = 0;     ///< found by all ranks since this process started
  double samples_per_s = 0;         ///< since this process entered the epoch
};

/// Validation result kept after its epoch, for selection and for checkpoints.
struct ValidationSummary {
  std::int64_t epoch = 0;  ///< from 1
  std::int64_t step = 0;
  /// The measures that can select, and what was fitted on val, by MeasuredValue::name.
  std::map<std::string, std::optional<double>, std::less<>> measures;

  /// Empty if the measure is undefined on the split, or unknown to the task.
  [[nodiscard]] std::optional<double> measure(std::string_view name) const;
};

/// Record of one epoch, or of the part that --max_steps allowed.
struct EpochRecord {
  std::int64_t epoch = 0;                    ///< from 1
  std::int64_t step = 0;                     ///< steps since the start of the run
  LossValues loss;                           ///< mean over the samples of the epoch's good steps
  double lr = 0;                             ///< learning rate of the epoch's last step
  double grad_norm = 0;                      ///< mean over the good steps
  std::int64_t samples = 0;                  ///< trained on in good steps
  std::int64_t bad_steps = 0;                ///< in this epoch
  std::int64_t overflow_steps = 0;           ///< in this epoch
  std::int64_t bad_samples = 0;              ///< found by all ranks since this process started
  std::vector<MeasuredValue> val;            ///< empty if the epoch was not evaluated
  std::optional<ValidationSummary> summary;  ///< summary of `val`
  bool best = false;                         ///< the best so far by --select_by
  double samples_per_s = 0;                  ///< in training
  double seconds = 0;                        ///< training and evaluation
};

/// Lines of metrics.jsonl (`kind` "step" and "epoch"). Non-finite and undefined values are null. Everything
/// except `samples_per_s`, `seconds` and `bad_samples` (which each process counts anew) is identical in every
/// run of the same configuration, interrupted or not.
[[nodiscard]] nlohmann::ordered_json to_json(const StepRecord& record);
[[nodiscard]] nlohmann::ordered_json to_json(const EpochRecord& record);

/// Data for an exported checkpoint.
struct TrainedModel {
  const ParameterStore& parameters;
  std::int64_t optimizer_steps = 0;  ///< AdamW's t
  std::int64_t epoch = 0;            ///< last epoch trained, from 1
  std::int64_t step = 0;
  double lr = 0;
  std::optional<ValidationSummary> val;  ///< result of these weights; absent without a validation split
};

/// Callbacks of a run. They do not affect the run; an exception ends it.
class TrainingObserver {
 public:
  TrainingObserver() = default;
  TrainingObserver(const TrainingObserver&) = delete;
  TrainingObserver& operator=(const TrainingObserver&) = delete;
  virtual ~TrainingObserver() = default;

  /// Called after every step, for a progress bar. Must not allocate.
  virtual void on_progress(const StepRecord& /*record*/) {}
  /// Called every --log_every steps and for every skipped step, for metrics.jsonl and TensorBoard.
  virtual void on_step(const StepRecord& /*record*/) {}
  /// Called after the evaluation of the epoch, if there is one, and after on_best.
  virtual void on_epoch(const EpochRecord& /*record*/) {}
  /// One line for the user: what was resumed or skipped.
  virtual void on_message(const std::string& /*message*/) {}
  /// Called when run() begins, with 0 and 0 in a fresh run. Records of the first `epochs` epoch ends and of
  /// the first `step` steps remain valid; later ones, and those of the test, are void and will be repeated.
  virtual void on_start(std::int64_t /*epochs*/, std::int64_t /*step*/) {}
  /// Called before a state is saved that is past everything reported so far: records of it must survive a
  /// power loss.
  virtual void before_state() {}
  /// Best on val so far (--save_path). May be repeated for the same weights after a crash.
  virtual void on_best(const TrainedModel& /*model*/) {}
  /// Called after the last step (--save_last), and again when a finished run is resumed.
  virtual void on_last(const TrainedModel& /*model*/) {}
};

}  // namespace voca::engine
