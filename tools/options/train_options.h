#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/batches/batch_source.h"
#include "data/packed/dataset.h"
#include "engine/trainer/trainer.h"
#include "model/config.h"
#include "model/network.h"
#include "tools/feature_input.h"
#include "tools/options/device_options.h"
#include "tools/options/option_set.h"

namespace voca::tools {

/// Options of `train`, named as on the command line. `plan` takes the same options.
struct TrainOptions {
  // data
  std::string features_root;
  std::string split_ratios = "0.6,0.2,0.2";
  std::uint64_t split_seed = 0;
  std::string group_by = "none";
  std::int64_t batch_size = 64;
  std::int64_t num_workers = 2;
  bool pin_memory = false;
  std::string data_residency = "auto";
  double augment_prob = 0.2;
  std::int64_t max_shift = 3;
  std::int64_t max_bad_samples = engine::kMaxBadSamples;
  // model
  std::string model = model::ModelConfig{}.model;
  std::int64_t seq_len = 256;
  std::int64_t hidden = 768;
  std::int64_t num_layers = 4;
  std::int64_t num_heads = 8;
  std::int64_t num_classes = 1;
  double dropout = 0.1;
  std::string cross_attention = "a2v";
  std::string positional_encoding = "none";
  // losses
  double label_smoothing = 0;
  std::string pos_weight = "1";
  bool use_contrastive = false;
  double contrastive_weight = 0.5;
  std::string contrastive_scope = "local";
  // optimiser and schedule
  std::int64_t epochs = 50;
  std::int64_t max_steps = 0;
  double lr = 3e-4;
  double weight_decay = 1e-4;
  std::int64_t warmup_epochs = 3;
  std::int64_t extend_epochs = 0;
  std::string schedule = "epoch";
  double max_grad_norm = 1.0;
  std::int64_t grad_accum = 1;
  std::string grad_dtype = "auto";
  std::int64_t max_bad_steps = 10;
  std::uint64_t seed = 0;
  // evaluation
  std::string select_by = "auc";
  std::string threshold_by = "balanced_acc";
  std::int64_t eval_every = 1;
  bool no_val = false;
  // files
  std::string run_dir;
  std::string save_path;
  std::string save_last;
  std::string resume;
  std::string init_from;
  std::string weights;
  bool overwrite = false;
  std::string checkpoint_every = "1epochs";
  std::int64_t keep = 2;
  std::int64_t log_every = 50;
  // machine
  std::string device = "auto";
  std::string precision = "auto";
  std::string gemm_autotune = "on";
  std::int64_t threads = 0;
  double comm_timeout = 300;
  double bucket_mb = 25;
  bool recompute = false;
  bool quiet = false;
  bool json = false;
};

void add_train_options(OptionSet& set, TrainOptions& options);

/// Best checkpoint in the run folder, unless --save_path names another file.
inline constexpr const char* kDefaultCheckpoint = "best_model.pt";

/// Paths of the outputs of a run.
struct RunPaths {
  std::filesystem::path run_dir;
  std::filesystem::path save_path;
};
[[nodiscard]] RunPaths run_paths(const TrainOptions& options);

/// Throws UsageError naming the option for a value that no device supports.
void check_values(const TrainOptions& options);
/// Throws UsageError for options that contradict each other, and for options on the command line that would
/// have no effect. `set` was parsed into `options`.
void check_combinations(const TrainOptions& options, const OptionSet& set);
/// Epochs of the whole run, including --extend_epochs.
[[nodiscard]] std::int64_t total_epochs(const TrainOptions& options);
/// Precision that --precision selects on a device: "fp32", "tf32", "bf16" or "fp16". Throws UsageError if the
/// device does not support it.
[[nodiscard]] std::string resolve_precision(const TrainOptions& options, engine::DeviceKind device);
[[nodiscard]] engine::DType compute_type_of(const std::string& precision);

/// Whether 16-bit gradients accumulate in fp32 (--grad_dtype). auto does so if there is something to
/// accumulate: several batches per step, or several ranks.
[[nodiscard]] bool sums_in_fp32(const TrainOptions& options, int world_size);

/// Throws UsageError for an option that a device of this kind does not support; returns notes on options that
/// have no effect on it.
[[nodiscard]] std::vector<std::string> check_for_device(const TrainOptions& options,
                                                        engine::DeviceKind device);
[[nodiscard]] DeviceOptions device_options(const TrainOptions& options);

/// Value of --pos_weight; "auto" is #fake / #real in the training split. Throws UsageError.
[[nodiscard]] double resolve_pos_weight(const TrainOptions& options, const data::DatasetSummary& data);

[[nodiscard]] model::ModelConfig model_config(const TrainOptions& options, std::int64_t visual_dim,
                                              std::int64_t audio_dim);
[[nodiscard]] model::Activations activations(const TrainOptions& options);
[[nodiscard]] model::LossConfig loss_config(const TrainOptions& options, double pos_weight);
/// Options that must be equal on every rank of a job, by name: everything that the numbers and the end of the
/// run depend on.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> options_to_agree_on(
    const nlohmann::ordered_json& values);
/// Configuration of the trainer, except folders and hashes, which depend on the run.
[[nodiscard]] engine::TrainerConfig trainer_config(const TrainOptions& options);
/// What the network is trained for. Throws UsageError naming --model or --threshold_by.
[[nodiscard]] std::unique_ptr<engine::Task> task_of(const TrainOptions& options);
[[nodiscard]] data::BatchSourceOptions batch_options(const TrainOptions& options, bool training, int rank = 0,
                                                     int world_size = 1);

/// How --features_root is packed if it is a tree. `set` was parsed into `options`.
[[nodiscard]] TreeOptions tree_options(const TrainOptions& options, const OptionSet& set);

/// Subset of `values` (OptionSet::values of train) that the numbers of a run depend on. `batch_size` is
/// summed over all ranks, so that a run may be continued on another number of ranks.
[[nodiscard]] nlohmann::ordered_json numeric_options(const nlohmann::ordered_json& values, int world_size);
/// Options and number of ranks of a run.
struct RunValues {
  nlohmann::ordered_json options;
  int world_size = 1;
};
/// First numeric option in which two runs differ: "--lr is 0.001 and was 0.0003"; empty if there is none.
[[nodiscard]] std::string first_difference(const RunValues& now, const RunValues& before);

}  // namespace voca::tools
