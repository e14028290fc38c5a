#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "data/packed/dataset.h"
#include "engine/telemetry/progress_bar.h"
#include "tools/architecture.h"
#include "tools/joined_job.h"
#include "tools/options/common_rows.h"
#include "tools/options/device_options.h"
#include "tools/options/option_set.h"
#include "tools/trained_model.h"

namespace voca::tools {

/// Options that `eval` and `predict` share.
struct InferenceOptions {
  CheckpointOptions checkpoint;
  std::string features_root;
  // nullopt: those that the network was trained with
  std::optional<data::SplitRatios> split_ratios;
  std::optional<std::uint64_t> split_seed;
  std::optional<data::GroupBy> group_by;
  std::int64_t batch_size = PredictionOptions{}.batch_size;
  int num_workers = PredictionOptions{}.num_workers;
  DeviceOptions device;
  double comm_timeout = kUsualCommTimeout;
  bool quiet = false;
  bool json = false;
};

void add_inference_options(OptionSet& set, InferenceOptions& options);
/// Opens --features_root, the same dataset on every rank. A tree gets the split that the network was trained
/// with unless options override it. Without `labels_needed`, accepts a folder of unlabelled videos, or a
/// single video.
[[nodiscard]] std::shared_ptr<const data::Dataset> open_inference_data(const InferenceOptions& options,
                                                                       const TrainedNetwork& network,
                                                                       engine::ProgressBar& progress,
                                                                       JoinedJob& job,
                                                                       bool labels_needed = true);
/// Warns if the split of `dataset` is not the one that the network was trained with: scores may then include
/// videos that it was trained on.
void warn_of_other_split(const TrainedNetwork& network, const data::Dataset& dataset,
                         engine::ProgressBar& progress);
[[nodiscard]] PredictionOptions prediction_options(const InferenceOptions& options, const JoinedJob& job);
/// Creates the device of --device; if a node has several GPUs, each rank uses its own.
[[nodiscard]] std::unique_ptr<engine::Device> make_device(const InferenceOptions& options, JoinedJob& job,
                                                          engine::ProgressBar& progress);

/// Check the options of eval and predict, and that their inputs exist, before the rendezvous, so that a
/// launcher reports errors once. nullopt if only help was requested, which is printed. Throw UsageError,
/// IoError.
[[nodiscard]] std::optional<InferenceOptions> check_eval(CommandLine command_line);
[[nodiscard]] std::optional<InferenceOptions> check_predict(CommandLine command_line);

/// Runs `body` in the job that this process is a rank of, usually its only one. Only rank 0 may print.
void in_inference_job(const OptionSet& set, const InferenceOptions& options,
                      const std::function<void(JoinedJob&)>& body);

}  // namespace voca::tools
