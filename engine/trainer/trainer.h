#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/core/batch.h"
#include "engine/core/device.h"
#include "engine/core/model.h"
#include "engine/core/task.h"
#include "engine/trainer/memory_plan.h"
#include "engine/trainer/optimizer.h"
#include "engine/trainer/ranks.h"
#include "engine/trainer/records.h"
#include "engine/trainer/schedule.h"

namespace voca::engine {

/// Throws UsageError saying that the validation split is empty.
[[noreturn]] void refuse_empty_validation();
/// A period in steps or epochs; 0: never.
struct Interval {
  std::int64_t count = 0;
  bool in_steps = false;

  static constexpr std::string_view kForm = "a number of epochs or steps, such as 2, 2epochs or 500steps";
  /// Also reads "2", which is of epochs.
  [[nodiscard]] static std::optional<Interval> parse(std::string_view text);
  [[nodiscard]] std::string text() const;
};

struct TrainerConfig {
  std::int64_t epochs = 50;
  std::int64_t extend_epochs = 0;  ///< further epochs of a run that has finished `epochs`
  std::int64_t max_steps = 0;      ///< stop after this many steps of the run; 0: no limit
  std::int64_t grad_accum = 1;     ///< batches per step
  double lr = 3e-4;
  std::int64_t warmup_epochs = 3;
  ScheduleKind schedule = ScheduleKind::kEpoch;
  OptimizerOptions optimizer{};     ///< weight decay, clipping
  std::int64_t max_bad_steps = 10;  ///< this many skipped in a row end the run
  /// The run ends if all ranks together find more bad samples than this. Each rank's source enforces its own
  /// limit.
  std::int64_t max_bad_samples = kMaxBadSamples;
  std::int64_t eval_every = 1;  ///< epochs; the last one is always evaluated
  std::int64_t log_every = 50;  ///< steps; 0: epochs only
  std::string select_by{};      ///< a measure of the task; not read with no_val
  bool no_val = false;          ///< train without a validation split
  std::uint64_t seed = 0;
  DType compute_type = DType::kF32;
  /// For 16-bit compute types: accumulate gradients over batches and ranks in fp32.
  bool wide_sums = false;

  std::filesystem::path checkpoint_folder{};  ///< for resume states; empty: none are saved
  Interval checkpoint_every{.count = 1};      ///< a state is also saved at the end of the run
  int keep = 2;                               ///< number of states kept
  std::string config_hash{};  ///< over all options that affect results; a state with another hash is refused
  std::string split_hash{};   ///< hash of the dataset's split; checked likewise
};

/// Throws InternalError for a number that no run can be made with.
void validate(const TrainerConfig& config);

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
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  [[nodiscard]] ParameterStore& parameters();
  [[nodiscard]] Workspace& workspace();

  /// Continues from the newest good state of the checkpoint folder; returns false and changes nothing if
  /// there is none. A damaged state is skipped with a message. Call this and resume_from() on rank 0 only.
  /// Throws DataError naming both hashes when the state is of another configuration or split, UsageError
  /// where extend() does.
  bool resume_latest();
  /// Continues from the given state (a file or a folder of states). Throws DataError when there is none or it
  /// is damaged.
  void resume_from(const std::filesystem::path& path);

  /// Best on val so far; before run(), that of the resumed run.
  [[nodiscard]] const std::optional<ValidationSummary>& best() const;
  /// Makes the selection ignore all earlier epochs. Call it on rank 0, before run().
  void forget_best();
  /// Completed epochs; before run(), those of the resumed run.
  [[nodiscard]] std::int64_t epochs_done() const;
  /// Whether run() has nothing left to train.
  [[nodiscard]] bool finished() const;

  /// Called after every step and between batches of an evaluation; returns the reason to stop at once
  /// ("SIGTERM"), or null.
  using StopReason = std::function<const char*()>;
  void set_stop_reason(StopReason reason);

  /// Trains to the end. Throws Interrupted after saving a state when asked to stop; DataError naming the
  /// first parameter with a non-finite gradient after max_bad_steps bad steps in a row.
  TrainingResult run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace voca::engine
