#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "engine/core/batch.h"
#include "engine/trainer/optimizer.h"
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

}  // namespace voca::engine
