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
#include "kernels/adamw.h"

namespace voca::tools {

/// Where a run's checkpoints are written, and what they record beside the weights.
struct CheckpointFacts {
  // .pt, or .safetensors for the weights alone
  std::filesystem::path save_path;  ///< best checkpoint on val; empty: not written
  std::filesystem::path save_last;  ///< checkpoint after the last step; empty: not written
  nlohmann::ordered_json config;    ///< every option by its CLI name
  nlohmann::ordered_json engine;    ///< versions and hashes
  kernels::AdamWOptions adamw{};
  std::string threshold_by;  ///< rule by which the threshold is fitted on val
};

/// Reports a training: progress on stderr, metrics.jsonl and TensorBoard events in the run folder, and the
/// checkpoints that were requested.
class RunReporter final : public engine::TrainingObserver {
 public:
  /// Steps that are timed, after the first one, before the expected time is reported.
  static constexpr std::int64_t kTimedSteps = 10;

  /// `total_steps` is that of the whole run; `epochs` appears in the progress line.
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

  /// Appends a line of kind "test" to metrics.jsonl.
  void on_test(const nlohmann::ordered_json& line);

 private:
  void write_checkpoint(const std::filesystem::path& path, const engine::TrainedModel& model) const;
  void record(const nlohmann::ordered_json& line);
  /// Reports the expected time once, after kTimedSteps steps.
  void say_expected_time(std::int64_t step);

  using Clock = std::chrono::steady_clock;
  engine::RunFolder& folder_;
  engine::ProgressBar& progress_;
  CheckpointFacts facts_;
  std::int64_t epochs_;
  std::int64_t total_steps_;
  std::optional<engine::TensorBoardWriter> tensorboard_;
  std::array<char, 48> phase_{};
  std::int64_t timed_from_ = 0;  // first step of this process; 0 before it
  Clock::time_point timed_since_{};
};

}  // namespace voca::tools
