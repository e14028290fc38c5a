#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/checkpoint/resume/resume_state.h"
#include "engine/core/parameters.h"
#include "engine/trainer/records.h"
#include "engine/trainer/schedule.h"
#include "engine/trainer/trainer_config.h"
#include "kernels/adamw.h"

namespace voca::engine {

/// Accumulators of an epoch's record over the steps so far.
struct EpochSums {
  LossValues loss;  ///< each step's mean times its number of samples; good steps
  double grad_norm = 0;
  std::int64_t samples = 0;
  std::int64_t good_steps = 0;
  std::int64_t bad_steps = 0;
  std::int64_t overflow_steps = 0;
  std::int64_t samples_seen = 0;  ///< including bad steps
  double seconds = 0;
};

/// Position of a run: together with weights and moments, everything that the rest of the run depends on. All
/// random numbers are derived from the seed, the epoch and the batch, so there is no generator state to save.
struct RunPosition {
  std::int64_t epoch = 0;  ///< completed epochs
  std::int64_t batch = 0;  ///< batches of the next epoch trained on
  std::int64_t step = 0;   ///< steps of the run, including bad ones
  std::int64_t bad_steps = 0;
  std::int64_t bad_steps_in_a_row = 0;
  std::int64_t overflow_steps = 0;    ///< skipped because of loss-scale overflows
  kernels::OptimizerState optimizer;  ///< its updates and loss scale, set where the position is saved
  double lr = 0;                      ///< learning rate of the last step
  bool finished = false;              ///< evaluated to the end, by --epochs or --max_steps
  Extension extension;                ///< latest extension of the run
  EpochSums sums;
  std::optional<ValidationSummary> best;
  std::optional<ValidationSummary> last;
};

/// Hashes that must be equal in the run that saved a state and in the one that resumes from it.
struct RunIdentity {
  std::string config_hash;
  std::string split_hash;
};

[[nodiscard]] nlohmann::ordered_json state_header(const RunPosition& progress, const RunIdentity& identity);
/// Position stored in a header, of a model with these losses. Throws
/// nlohmann::json::exception when the header is invalid.
[[nodiscard]] RunPosition position_of(const nlohmann::ordered_json& header, LossNames losses);
/// Masters and moments of each parameter, by name; views into `parameters`, which must outlive them.
[[nodiscard]] std::vector<NamedTensor> state_tensors(const HostParameters& parameters);

/// Loads what state_header() and state_tensors() saved. Throws DataError naming the file when the
/// configuration or split differs (naming both), or when a header or tensor does not fit.
[[nodiscard]] RunPosition restore_state(const ResumeState& state, const RunIdentity& identity,
                                        LossNames losses, ParameterStore& parameters);

/// Extends a finished run by config.extend_epochs. Returns true if this begins a new extension; a run that is
/// already extended continues in its extension. `source` names the run. Throws UsageError naming
/// --extend_epochs when the run is not finished, or when the option disagrees with the current extension.
bool extend(RunPosition& progress, const TrainerConfig& config, const std::string& source);

}  // namespace voca::engine
