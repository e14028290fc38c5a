#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "engine/telemetry/progress_bar.h"
#include "engine/telemetry/run_folder.h"
#include "engine/telemetry/tensorboard.h"
#include "engine/trainer/records.h"

namespace voca::tools {

/// What a run's checkpoints say beside the weights.
struct CheckpointFacts {
  // .pt, or .safetensors: weights alone
  std::filesystem::path save_path;  ///< the best on val; empty: not written
  std::filesystem::path save_last;  ///< after the last step; empty: not written
  nlohmann::ordered_json config;    ///< every option by its CLI name
  nlohmann::ordered_json engine;    ///< versions and hashes
  double weight_decay = 0;
  std::string threshold_by;  ///< the rule that the validation's threshold is fitted by
};

/// Tells of a training: progress on stderr, metrics.jsonl and TensorBoard in the run folder, and the
/// checkpoints that people asked for.
class RunReporter final : public engine::TrainingObserver {
 public:
  /// So many steps are timed after the first, before the run's time is said.
  static constexpr std::int64_t kTimedSteps = 10;

  /// `total_steps` of the whole run; `epochs` for the phase of the progress line.
  RunReporter(engine::RunFolder& folder, engine::ProgressBar& progress, CheckpointFacts facts,
              std::int64_t epochs, std::int64_t total_steps);

  void on_start(std::int64_t epochs, std::int64_t step) override;
  void on_progress(const engine::StepRecord& record) override;
  void on_step(const engine::StepRecord& record) override;
  void on_epoch(const engine::EpochRecord& record) override;
  void on_message(const std::string& message) override;
  void before_state() override;
  void on_best(const engine::TrainedModel& model) override;
  void on_last(const engine::TrainedModel& model) override;

  /// A line of metrics.jsonl, kind "test".
  void on_test(const nlohmann::ordered_json& line);

 private:
  void write_checkpoint(const std::filesystem::path& path, const engine::TrainedModel& model) const;
  void record(const nlohmann::ordered_json& line);
  /// Once, after some steps: what the banner could not know.
  void say_expected_time(std::int64_t step);

  using Clock = std::chrono::steady_clock;
  engine::RunFolder& folder_;
  engine::ProgressBar& progress_;
  CheckpointFacts facts_;
  std::int64_t epochs_;
  std::int64_t total_steps_;
  std::optional<engine::TensorBoardWriter> tensorboard_;
  std::array<char, 48> phase_{};
  std::int64_t timed_from_ = 0;  // the first step of this process; 0 before it
  Clock::time_point timed_since_{};
};

}  // namespace voca::tools
