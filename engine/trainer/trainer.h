#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/core/batch.h"
#include "engine/core/device.h"
#include "engine/core/model.h"
#include "engine/trainer/evaluator.h"
#include "engine/trainer/memory.h"
#include "engine/trainer/optimizer.h"
#include "engine/trainer/ranks.h"
#include "engine/trainer/records.h"
#include "engine/trainer/schedule.h"

namespace voca::engine {

/// What decides which checkpoint is the best, on val. Loss is the only one that is better when smaller.
enum class SelectBy : std::uint8_t { kAuc, kAcc, kAp, kLoss };
/// "auc", "acc", "ap", "loss"; throws UsageError naming --select_by for anything else.
[[nodiscard]] SelectBy parse_select_by(std::string_view text);
[[nodiscard]] std::string_view name_of(SelectBy select_by);
/// The value it selects by; empty where the split does not define it.
[[nodiscard]] std::optional<double> selection_value(SelectBy select_by, const ValidationSummary& summary);

/// Throws UsageError saying that there is nothing to validate on.
[[noreturn]] void refuse_empty_validation();
/// Throws UsageError naming --select_by when the model's kind leaves its measure undefined (ap is of two
/// classes).
void check_selection(SelectBy select_by, std::int64_t outputs);
/// The same, and when a validation split with so many samples of each class does (auc and ap need two
/// classes), or is empty. For before the first step; the trainer itself sees no labels before the first
/// evaluation, and where the measure is undefined then, says so and selects nothing.
void check_selection(SelectBy select_by, std::int64_t outputs,
                     std::span<const std::int64_t> samples_of_class);

/// Every so many steps or epochs; 0 never.
struct Interval {
  std::int64_t count = 0;
  bool in_steps = false;
};
/// "500steps", "2epochs", "2" (epochs); throws UsageError naming `option` otherwise.
[[nodiscard]] Interval parse_interval(std::string_view option, std::string_view text);

struct TrainerConfig {
  std::int64_t epochs = 50;
  std::int64_t extend_epochs = 0;  ///< further ones of a run that has finished `epochs`
  std::int64_t max_steps = 0;      ///< stop after so many steps of the run; 0: no limit
  std::int64_t grad_accum = 1;     ///< batches a step
  double lr = 3e-4;
  std::int64_t warmup_epochs = 0;
  ScheduleKind schedule = ScheduleKind::kEpoch;
  OptimizerOptions optimizer;       ///< weight decay, clipping
  std::int64_t max_bad_steps = 10;  ///< so many skipped in a row end the run
  /// More bad samples than this, of all ranks together, end the run. One rank's source sees to its own.
  std::int64_t max_bad_samples = kMaxBadSamples;
  std::int64_t eval_every = 1;  ///< epochs; the last one is always evaluated
  std::int64_t log_every = 0;   ///< steps; 0: epochs only
  SelectBy select_by = SelectBy::kAuc;
  ThresholdRule threshold_by{};  ///< what the decision threshold is fitted on val by
  bool no_val = false;           ///< train without a validation split
  std::uint64_t seed = 0;
  DType compute_type = DType::kF32;
  /// Where that has 16 bits: gradients of the step's batches and of the ranks are added up in fp32.
  bool wide_sums = false;

  std::filesystem::path checkpoint_folder;  ///< of resume states; empty keeps none
  Interval checkpoint_every{.count = 1};    ///< a state is saved at the end of the run, too
  int keep = 2;                             ///< states kept
  std::string config_hash;  ///< of every option that numbers depend on; a state of another is refused
  std::string split_hash;   ///< of the dataset's split; likewise
};

/// Throws UsageError naming the option that is out of range.
void validate(const TrainerConfig& config);

/// How a run ended.
struct TrainingResult {
  std::int64_t epochs = 0;      ///< done
  std::int64_t last_epoch = 0;  ///< trained in, from 1; not among those done where --max_steps ended it
  std::int64_t step = 0;
  std::int64_t bad_steps = 0;
  std::int64_t overflow_steps = 0;  ///< left out while fp16's loss scale found its size
  std::optional<ValidationSummary> best;
  std::optional<ValidationSummary> last;
};

/// Trains a model. With several ranks every one has a trainer, with its own slice of each global batch and of
/// the validation split; gradients and losses are those of the global batch on all of them, decisions are
/// taken together, rank 0's parameters are what all start from and its observer and folder are the run's.
///
/// Same configuration, data and build: the same bits, however often the run was stopped or
/// killed and resumed (docs/determinism.md).
///
///   Trainer trainer(config, model, train, &val, device, observer);   // all memory is taken here
///   trainer.parameters().initialise(seed);                           // or load weights into it
///   trainer.resume_latest();                                         // --resume auto
///   trainer.run();
class Trainer {
 public:
  /// What it will allocate on the device; `val` null without validation.
  [[nodiscard]] static MemoryRequest memory_request(const TrainerConfig& config, const BatchSource& train,
                                                    const BatchSource* val, int world_size = 1);

  /// Checks the configuration and takes all memory. Throws UsageError naming the option that is out of range,
  /// when a split is empty (val: unless no_val), and when it does not fit (Workspace).
  Trainer(const TrainerConfig& config, const Model& model, BatchSource& train, BatchSource* val,
          Device& device, TrainingObserver& observer, Ranks ranks = {});
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  [[nodiscard]] ParameterStore& parameters();
  [[nodiscard]] Workspace& workspace();

  /// Rank 0's to call, as resume_from(). Continues from the newest good state of the checkpoint folder;
  /// false, and nothing is changed, where there is none. A damaged one is passed over with a message. Throws
  /// DataError naming both hashes when the state is of another configuration or split, UsageError where
  /// extend() does.
  bool resume_latest();
  /// Continues from that state (a file or a folder of states). Throws DataError when there is none or it is
  /// damaged.
  void resume_from(const std::filesystem::path& path);

  /// The best on val so far; of the run that was resumed, before run().
  [[nodiscard]] const std::optional<ValidationSummary>& best() const;
  /// The best of the epochs to come is chosen, whatever came before. Rank 0's to call, before run().
  void forget_best();
  /// Whole epochs trained so far; of the run that was resumed, before run().
  [[nodiscard]] std::int64_t epochs_done() const;
  /// Whether run() has nothing left to train.
  [[nodiscard]] bool finished() const;

  /// Asked after every step and between batches of an evaluation; the reason ("SIGTERM") to stop at once, or
  /// null.
  using StopReason = std::function<const char*()>;
  void set_stop_reason(StopReason reason);

  /// Trains to the end. Throws Interrupted after saving a state when asked to stop; DataError naming the
  /// first parameter without a finite gradient after max_bad_steps bad steps in a row.
  TrainingResult run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace voca::engine
