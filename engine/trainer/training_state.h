#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/checkpoint/resume/resume_state.h"
#include "engine/core/parameters.h"
#include "engine/trainer/records.h"
#include "engine/trainer/schedule.h"
#include "engine/trainer/trainer.h"

namespace voca::engine {

/// What an epoch's record is made of, summed over the steps so far.
struct EpochSums {
  LossValues loss;  ///< each step's mean times its samples; good steps
  double grad_norm = 0;
  std::int64_t samples = 0;
  std::int64_t good_steps = 0;
  std::int64_t bad_steps = 0;
  std::int64_t overflow_steps = 0;
  std::int64_t samples_seen = 0;  ///< of bad steps as well
  double seconds = 0;
};

/// Where a run stands: with the weights and moments everything that the rest of it depends on. The numbers of
/// every random stream follow from the seed, the epoch and the batch, so there is no generator to save.
struct RunPosition {
  std::int64_t epoch = 0;  ///< epochs done
  std::int64_t batch = 0;  ///< batches of the next epoch trained on
  std::int64_t step = 0;   ///< steps of the run, bad ones included
  std::int64_t optimizer_steps = 0;
  std::int64_t bad_steps = 0;
  std::int64_t bad_steps_in_a_row = 0;
  std::int64_t overflow_steps = 0;  ///< left out for the loss scale's sake
  double loss_scale = 1;
  std::int64_t loss_scale_steps = 0;  ///< updates since it last changed
  double lr = 0;                      ///< of the last step
  bool finished = false;              ///< evaluated to the end, by --epochs or --max_steps
  Extension extension;                ///< the last that the run was given
  EpochSums sums;
  std::optional<ValidationSummary> best;
  std::optional<ValidationSummary> last;
};

/// What must be the same in the run that saved a state and in the one that continues from it.
struct RunIdentity {
  std::string config_hash;
  std::string split_hash;
};

[[nodiscard]] nlohmann::ordered_json state_header(const RunPosition& progress, const RunIdentity& identity);
/// The position that a header holds. Throws nlohmann::json::exception when it does not.
[[nodiscard]] RunPosition position_of(const nlohmann::ordered_json& header);
/// Masters and moments of each parameter, by name; they lie in `parameters`, which must outlive them.
[[nodiscard]] std::vector<ResumeSection> state_sections(const HostParameters& parameters);

/// Loads what state_header() and state_sections() saved. Throws DataError naming the file: another
/// configuration or split (naming both), a header or a section that does not fit.
[[nodiscard]] RunPosition restore_state(const ResumeState& state, const RunIdentity& identity,
                                        ParameterStore& parameters);

/// Lets a finished run go on for config.extend_epochs; true where a new extension begins with it. A run that
/// is extended already continues in its extension. `source` names the run. Throws UsageError naming
/// --extend_epochs when the run is not finished, or the option disagrees with the extension it is in.
bool extend(RunPosition& progress, const TrainerConfig& config, const std::string& source);

}  // namespace voca::engine
