#pragma once

// The .pt file of a training run: what PyTorch recipes save beside the weights, under the usual names.

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
#include "kernels/adamw.h"

namespace voca::engine {

/// One parameter to save. The spans have as many elements as `shape` and must stay valid until the file is
/// written.
struct ParameterState {
  std::string name;  ///< state_dict name
  std::vector<std::int64_t> shape;
  std::span<const float> weights;
  std::span<const float> exp_avg;     ///< AdamW's first moment; empty without an optimizer
  std::span<const float> exp_avg_sq;  ///< AdamW's second moment; empty without an optimizer
};

/// State of torch.optim.AdamW beside the moments; one parameter group.
struct AdamWState {
  std::int64_t step = 0;  ///< number of updates, equal for all parameters
  double lr = 0;
  kernels::AdamWOptions options{};
};

struct TrainingCheckpoint {
  std::int64_t epoch = 0;
  std::vector<ParameterState> parameters;  ///< in the module's registration order
  std::optional<AdamWState> optimizer;     ///< if absent, `optimizer_state_dict` is None
  std::optional<double> val_acc;           ///< if absent, None
  std::optional<double> val_auc;
  nlohmann::ordered_json config = nlohmann::ordered_json::object();  ///< every option by its CLI name
  /// Git revision, split hash, threshold, …
  nlohmann::ordered_json engine = nlohmann::ordered_json::object();
};

/// Version of the dictionary's layout, stored by the writer as `engine.format_version`.
inline constexpr std::int64_t kCheckpointFormatVersion = 1;

/// Writes the dictionary described in docs/checkpoints.md through write_pt. torch.load(weights_only=True),
/// nn.Module.load_state_dict(strict=True) and torch.optim.AdamW.load_state_dict (PyTorch 1.13 and newer)
/// accept it.
void write_training_checkpoint(const std::filesystem::path& path, const TrainingCheckpoint& checkpoint);

/// Writes only the weights as a .safetensors file, with `config` and `engine` as JSON in the metadata, which
/// read_training_checkpoint() reads back. Throws IoError.
void write_weights(const std::filesystem::path& path, std::span<const NamedTensor> weights,
                   const nlohmann::ordered_json& config, nlohmann::ordered_json engine);

/// A dict of tensors somewhere in a file, with the file's names.
struct StateDict {
  std::string key;  ///< path of the dict: "model_state_dict", "checkpoint.ema"; empty: the root
  std::vector<NamedTensor> tensors;
  /// Entries named like parameters (with a dot) whose object is not loaded, and a description of it:
  /// ("v_proj.0.weight", "my.Tensor, not loaded").
  std::vector<std::pair<std::string, std::string>> others;
};

/// Contents of a file that describe a network. The choice of the state dict to use as weights is left to the
/// caller.
struct LoadedCheckpoint {
  std::vector<StateDict> state_dicts;  ///< in the file's order; optimizer states are excluded
  /// Contents of `config`, `args`, `hparams`, `hyper_parameters` and similar, plus the root's own numbers and
  /// strings; if a name occurs twice, the first is kept.
  nlohmann::ordered_json config = nlohmann::ordered_json::object();
  /// What this program wrote beside the weights; empty for files of other programs.
  nlohmann::ordered_json engine = nlohmann::ordered_json::object();
  std::vector<std::string> not_loaded;  ///< list_inert() of the file
};

/// Reads a .pt or a .safetensors file (config and engine from its metadata), distinguished by content. Every
/// byte is verified first. Anything that is neither a tensor nor plain data stays inert and unread, as do
/// optimizer states. Throws IoError, or DataError in one line: a damaged or malformed file, an
/// `engine.format_version` newer than this one.
[[nodiscard]] LoadedCheckpoint read_training_checkpoint(const std::filesystem::path& path);

/// Interprets the value of a .pt file; messages begin with `source` (the file's name).
[[nodiscard]] LoadedCheckpoint interpret_checkpoint(const std::string& source, const Value& root);

/// Destination of a parameter.
struct ParameterTarget {
  std::string name;
  std::vector<std::int64_t> shape;
  std::span<float> elements;  ///< overwritten, row-major
};

/// Throws DataError unless `tensors` have exactly the names and shapes of `targets`, and floating-point
/// elements. The message is one line that begins with `source` (the file's name) and lists missing,
/// unexpected and mismatched parameters. The targets' `elements` may be empty here.
void check_parameters(const std::string& source, std::span<const NamedTensor> tensors,
                      std::span<const ParameterTarget> targets);

/// Throws DataError naming the first tensor with an element that is NaN or infinite as float32.
void check_finite(const std::string& source, std::span<const NamedTensor> tensors);

/// Loads `tensors` into `targets`, after check_parameters(); nothing is written if it throws.
void load_parameters(const std::string& source, std::span<const NamedTensor> tensors,
                     std::span<const ParameterTarget> targets);

}  // namespace voca::engine
