#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "data/packed/dataset.h"
#include "engine/telemetry/progress_bar.h"
#include "tools/architecture.h"
#include "tools/joined_job.h"
#include "tools/options/device_options.h"
#include "tools/options/option_set.h"
#include "tools/trained_model.h"

namespace voca::tools {

/// What `eval` and `predict` have in common.
struct InferenceOptions {
  CheckpointOptions checkpoint;
  std::string features_root;
  std::string split_ratios = "0.6,0.2,0.2";
  std::uint64_t split_seed = 0;
  std::string group_by = "none";
  std::int64_t batch_size = 64;
  std::int64_t num_workers = 2;
  std::int64_t threads = 0;
  double comm_timeout = 300;
  std::string device = "auto";
  bool quiet = false;
  bool json = false;
};

void add_inference_options(OptionSet& set, InferenceOptions& options);
/// Throws UsageError naming the option that is out of range.
void check(const InferenceOptions& options);
/// Opens --features_root, on every rank the same. A tree gets the split that the network was trained with
/// unless options say otherwise. Without `labels_needed` it may be a folder of videos, or of one.
[[nodiscard]] std::shared_ptr<const data::Dataset> open_inference_data(
    const OptionSet& set, const InferenceOptions& options, const TrainedNetwork& network,
    engine::ProgressBar& progress, JoinedJob& job, bool labels_needed = true);
/// Says that scores on a split of `dataset` may be of videos that the network was trained on.
void warn_of_other_split(const TrainedNetwork& network, const data::Dataset& dataset,
                         engine::ProgressBar& progress);
[[nodiscard]] PredictionOptions prediction_options(const InferenceOptions& options, const JoinedJob& job);
/// The one of --device; of several GPUs of a node each rank takes its own.
[[nodiscard]] std::unique_ptr<engine::Device> make_device(const InferenceOptions& options, JoinedJob& job,
                                                          engine::ProgressBar& progress);

/// What eval and predict find wrong before they meet other ranks, for a launcher to say once: options, and
/// inputs that are not there. False where only help was asked for, which is printed. Throws UsageError,
/// IoError.
[[nodiscard]] bool check_eval(CommandLine command_line);
[[nodiscard]] bool check_predict(CommandLine command_line);

/// Runs `body` in the job of ranks that this process belongs to; usually it is alone. Rank 0 is to print.
void in_inference_job(const OptionSet& set, const InferenceOptions& options,
                      const std::function<void(JoinedJob&)>& body);

}  // namespace voca::tools
