#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/batches/batch_source.h"
#include "data/packed/dataset.h"
#include "engine/base/names.h"
#include "engine/trainer/trainer.h"
#include "model/config.h"
#include "model/network.h"
#include "tools/feature_input.h"
#include "tools/options/common_rows.h"
#include "tools/options/device_options.h"
#include "tools/options/option_set.h"

namespace voca::tools {

/// What a step computes in. kAuto: bf16 on a GPU, fp32 on a CPU.
enum class Precision : std::uint8_t { kAuto, kFp32, kTf32, kBf16, kFp16 };
constexpr auto names_of(Precision /*tag*/) {
  return std::to_array<engine::Named<Precision>>({{"auto", Precision::kAuto},
                                                  {"fp32", Precision::kFp32},
                                                  {"tf32", Precision::kTf32},
                                                  {"bf16", Precision::kBf16},
                                                  {"fp16", Precision::kFp16}});
}

/// What gradients are added up in. kAuto: fp32 if there are several to add, else kCompute, the type of a
/// step.
enum class GradDtype : std::uint8_t { kAuto, kFp32, kCompute };
constexpr auto names_of(GradDtype /*tag*/) {
  return std::to_array<engine::Named<GradDtype>>(
      {{"auto", GradDtype::kAuto}, {"fp32", GradDtype::kFp32}, {"compute", GradDtype::kCompute}});
}

/// Value of --resume.
struct Resume {
  bool latest = false;  ///< "auto": from the newest state of --run_dir
  std::string path;     ///< a state or a folder of states; empty: none is named

  static constexpr std::string_view kForm = "auto or a path";
  [[nodiscard]] static std::optional<Resume> parse(std::string_view text);
  [[nodiscard]] std::string text() const { return latest ? "auto" : path; }
  [[nodiscard]] bool requested() const { return latest || !path.empty(); }
};

/// Options of `train`; `plan` takes the same. What depends on the data, the device or the ranks is filled in
/// by the functions below.
struct TrainOptions {
  std::string features_root;
  TreeOptions tree;
  data::BatchSourceOptions batches;
  bool pin_memory = false;
  model::ModelConfig model;
  model::LossConfig losses;
  std::optional<double> pos_weight = model::LossConfig{}.pos_weight;  ///< nullopt: #fake / #real
  engine::TrainerConfig trainer{.select_by = "auc"};
  model::ThresholdRule threshold_by;  ///< by which the decision threshold is fitted on val
  GradDtype grad_dtype = GradDtype::kAuto;
  std::string run_dir;
  std::string save_path;
  std::string save_last;
  Resume resume;
  std::string init_from;
  std::string weights;
  bool overwrite = false;
  DeviceOptions device;
  Precision precision = Precision::kAuto;
  double comm_timeout = kUsualCommTimeout;
  double bucket_mb = static_cast<double>(engine::BucketOptions{}.bucket_bytes) / 1048576;
  bool recompute = false;
  bool quiet = false;
  bool json = false;
};

/// The options of a command that trains or plans to, and their table.
struct TrainArguments {
  TrainArguments(std::string command, std::string summary);
  /// The arguments of `train`.
  TrainArguments();
  /// Parses the command line; false if only help was requested, which is printed. Throws as
  /// OptionSet::parse() does.
  [[nodiscard]] bool parse(CommandLine command_line);

  TrainOptions options;
  OptionSet set;
};

/// Parses the command line of `train`, and checks all that can be checked before the rendezvous; false if
/// only help was requested, which is printed. Throws UsageError.
[[nodiscard]] bool read_train_arguments(CommandLine command_line, TrainArguments& arguments);

/// Throws UsageError naming the options that contradict each other, whatever the data and the device.
void check_values(const TrainOptions& options);

/// Best checkpoint in the run folder, unless --save_path names another file.
inline constexpr const char* kDefaultCheckpoint = "best_model.pt";

/// Paths of the outputs of a run.
struct RunPaths {
  std::filesystem::path run_dir;
  std::filesystem::path save_path;
};
[[nodiscard]] RunPaths run_paths(const TrainOptions& options);

/// Epochs of the whole run, including --extend_epochs.
[[nodiscard]] std::int64_t total_epochs(const TrainOptions& options);
/// Precision that --precision selects on a device, never kAuto. Throws UsageError if the device does not
/// support it.
[[nodiscard]] Precision resolve_precision(const TrainOptions& options, engine::DeviceKind device);
[[nodiscard]] engine::DType compute_type_of(Precision precision);

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

/// The network for embeddings of these widths.
[[nodiscard]] model::ModelConfig model_config(const TrainOptions& options, std::int64_t visual_dim,
                                              std::int64_t audio_dim);
[[nodiscard]] model::Activations activations(const TrainOptions& options);
[[nodiscard]] model::LossConfig loss_config(const TrainOptions& options, double pos_weight);
/// What the network is trained for.
[[nodiscard]] std::unique_ptr<engine::Task> task_of(const TrainOptions& options);
[[nodiscard]] data::BatchSourceOptions batch_options(const TrainOptions& options, bool training, int rank = 0,
                                                     int world_size = 1);

/// Subset of `values` (OptionSet::values of train) that the numbers of a run depend on. `batch_size` is
/// summed over all ranks, so that a run may be continued on another number of ranks.
[[nodiscard]] nlohmann::ordered_json numeric_options(const nlohmann::ordered_json& values, int world_size);
/// Options and number of ranks of a run.
struct RunValues {
  nlohmann::ordered_json options;
  int world_size = 1;
  const OptionSet* set = nullptr;  ///< for options of this process: where their values come from
};
/// A numeric option in which two runs differ.
struct Difference {
  std::string option;  ///< name
  std::string text;    ///< "--lr is 0.001 and was 0.0003"
  /// Where this process has the value from.
  OptionSet::Origin origin = OptionSet::Origin::kCommandLine;
};
/// The first such option; nullopt if there is none.
[[nodiscard]] std::optional<Difference> first_difference(const RunValues& now, const RunValues& before);

}  // namespace voca::tools
