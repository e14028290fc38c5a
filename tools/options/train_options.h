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
#include "model/crossmodal_transformer.h"
#include "tools/feature_input.h"
#include "tools/options/device_options.h"
#include "tools/options/option_set.h"

namespace voca::tools {

/// The options of `train`, by name, as the command line spells them. `plan` takes the same.
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

/// In the run folder, where --save_path names no other.
inline constexpr const char* kDefaultCheckpoint = "best_model.pt";

/// Where the run leaves its files.
struct RunPaths {
  std::filesystem::path run_dir;
  std::filesystem::path save_path;
};
[[nodiscard]] RunPaths run_paths(const TrainOptions& options);

/// Throws UsageError for a value that no device can honour, naming the option.
void check_values(const TrainOptions& options);
/// Throws UsageError for options that contradict each other, and for those given on the command line that
/// would have no effect. `set` was parsed into `options`.
void check_combinations(const TrainOptions& options, const OptionSet& set);
/// Epochs of the whole run.
[[nodiscard]] std::int64_t total_epochs(const TrainOptions& options);
/// What --precision stands for on a device: "fp32", "tf32", "bf16" or "fp16". Throws UsageError when the
/// device does not compute in it.
[[nodiscard]] std::string resolve_precision(const TrainOptions& options, engine::DeviceKind device);
[[nodiscard]] engine::DType compute_type_of(const std::string& precision);

/// Whether --grad_dtype adds gradients up in fp32 where their type has 16 bits; auto does where there is
/// something to add: several batches a step, or ranks.
[[nodiscard]] bool sums_in_fp32(const TrainOptions& options, int world_size);

/// The same for a run on a device of this kind.
[[nodiscard]] std::vector<std::string> check_for_device(const TrainOptions& options,
                                                        engine::DeviceKind device);
[[nodiscard]] DeviceOptions device_options(const TrainOptions& options);

/// The number `--pos_weight` stands for; "auto" is #fake / #real of the training split. Throws UsageError.
[[nodiscard]] double resolve_pos_weight(const TrainOptions& options, const data::DatasetSummary& data);

[[nodiscard]] model::ModelConfig model_config(const TrainOptions& options, std::int64_t visual_dim,
                                              std::int64_t audio_dim);
[[nodiscard]] model::Activations activations(const TrainOptions& options);
[[nodiscard]] model::LossConfig loss_config(const TrainOptions& options, double pos_weight);
/// What the ranks of a job must be given alike, by the names of the options: all that the run's numbers and
/// its end depend on.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> options_to_agree_on(
    const nlohmann::ordered_json& values);
/// Everything but folders and hashes, which are the run's.
[[nodiscard]] engine::TrainerConfig trainer_config(const TrainOptions& options);
[[nodiscard]] data::BatchSourceOptions batch_options(const TrainOptions& options, bool training, int rank = 0,
                                                     int world_size = 1);

/// How --features_root is packed when it is a tree. `set` was parsed into `options`.
[[nodiscard]] TreeOptions tree_options(const TrainOptions& options, const OptionSet& set);

/// Of `values` (OptionSet::values of train), those that the numbers of a run depend on; `batch_size` is that
/// of all ranks together, so that a run may be continued on another number of them.
[[nodiscard]] nlohmann::ordered_json numeric_options(const nlohmann::ordered_json& values, int world_size);
/// The options of a run and the number of its ranks.
struct RunValues {
  nlohmann::ordered_json options;
  int world_size = 1;
};
/// The first of them in which two runs differ, "--lr is 0.001 and was 0.0003"; empty when none does.
[[nodiscard]] std::string first_difference(const RunValues& now, const RunValues& before);

}  // namespace voca::tools
