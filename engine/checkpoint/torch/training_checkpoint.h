#pragma once

// The .pt of a training: what a PyTorch recipe saves beside its weights, in the names PyTorch users look for.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/checkpoint/safetensors/safetensors.h"
#include "engine/checkpoint/torch/pt_file.h"
#include "engine/checkpoint/torch/value.h"

namespace voca::engine {

/// One parameter to save; spans have as many elements as `shape` and live until the file is written.
struct ParameterState {
  std::string name;  ///< its state_dict name
  std::vector<std::int64_t> shape;
  std::span<const float> weights;
  std::span<const float> exp_avg;     ///< AdamW's first moment; empty without an optimizer
  std::span<const float> exp_avg_sq;  ///< AdamW's second moment; likewise
};

/// What torch.optim.AdamW keeps beside its moments; one parameter group.
struct AdamWState {
  std::int64_t step = 0;  ///< updates made, the same for every parameter
  double lr = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

struct TrainingCheckpoint {
  std::int64_t epoch = 0;
  std::vector<ParameterState> parameters;  ///< in the module's order of registration
  std::optional<AdamWState> optimizer;     ///< absent: `optimizer_state_dict` is None
  std::optional<double> val_acc;           ///< absent: None
  std::optional<double> val_auc;
  nlohmann::ordered_json config = nlohmann::ordered_json::object();  ///< every option by its CLI name
  nlohmann::ordered_json engine =
      nlohmann::ordered_json::object();  ///< git revision, split hash, threshold, …
};

/// Version of the dictionary's layout, `engine.format_version`; the writer adds it.
inline constexpr std::int64_t kCheckpointFormatVersion = 1;

/// Writes the dictionary of docs/checkpoints.md through write_pt. torch.load(weights_only=True),
/// nn.Module.load_state_dict(strict=True) and torch.optim.AdamW.load_state_dict (PyTorch 1.13 and newer)
/// accept it.
void write_training_checkpoint(const std::filesystem::path& path, const TrainingCheckpoint& checkpoint);

/// Writes weights alone as a .safetensors, with `config` and `engine` as JSON in its metadata, which
/// read_training_checkpoint() reads back. Throws IoError.
void write_weights(const std::filesystem::path& path, std::span<const NamedTensor> weights,
                   const nlohmann::ordered_json& config, nlohmann::ordered_json engine);

/// A dict of tensors somewhere in a file, under the file's names.
struct StateDict {
  std::string key;  ///< where it lies: "model_state_dict", "checkpoint.ema"; empty: the file itself
  std::vector<NamedTensor> tensors;
  /// Names with a dot, as parameters have, that hold an object which is not loaded, and which:
  /// ("v_proj.0.weight", "my.Tensor, not loaded").
  std::vector<std::pair<std::string, std::string>> others;
};

/// What a file says of a network. Which of its state dicts are the weights is not decided here.
struct LoadedCheckpoint {
  std::vector<StateDict> state_dicts;  ///< in the file's order; none of an optimizer's
  /// What `config`, `args`, `hparams`, `hyper_parameters` and their like hold, and beside them the numbers
  /// and texts of the file itself; of a name that occurs twice the first stays.
  nlohmann::ordered_json config = nlohmann::ordered_json::object();
  /// What this program wrote beside the weights; empty in the files of others.
  nlohmann::ordered_json engine = nlohmann::ordered_json::object();
  std::vector<std::string> not_loaded;  ///< list_inert of the file
};

/// Reads a .pt or, by its content, a .safetensors (config and engine from its metadata). Every byte is
/// verified first. What is neither a tensor nor plain data stays inert and unread, and so does the state of
/// optimizers. Throws IoError, or DataError in one line: a damaged or malformed file, an
/// `engine.format_version` newer than this one.
[[nodiscard]] LoadedCheckpoint read_training_checkpoint(const std::filesystem::path& path);

/// What the value of a .pt says of a network; `source` (the file's name) begins messages.
[[nodiscard]] LoadedCheckpoint interpret_checkpoint(const std::string& source, const Value& root);

/// Where a parameter is loaded to.
struct ParameterTarget {
  std::string name;
  std::vector<std::int64_t> shape;
  std::span<float> elements;  ///< overwritten, row-major
};

/// Throws DataError in one line that begins with `source` (the file's name) and lists missing, unexpected and
/// mismatched parameters unless `tensors` have exactly the names and shapes of `targets`, whose elements may
/// be empty here, and floating-point elements.
void check_parameters(const std::string& source, std::span<const NamedTensor> tensors,
                      std::span<const ParameterTarget> targets);

/// Throws DataError naming the first of the tensors that holds a number which is NaN or infinite as float32.
void check_finite(const std::string& source, std::span<const NamedTensor> tensors);

/// Loads `tensors` into `targets`; check_parameters() holds before anything is written.
void load_parameters(const std::string& source, std::span<const NamedTensor> tensors,
                     std::span<const ParameterTarget> targets);

}  // namespace voca::engine
