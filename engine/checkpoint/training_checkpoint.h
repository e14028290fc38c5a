#pragma once

// The .pt of a training: what a PyTorch recipe saves beside its weights, in the names PyTorch users look for.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/checkpoint/pt_file.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/checkpoint/value.h"

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

/// AdamW's state as a checkpoint holds it; moments by index in the order of registration.
struct LoadedOptimizer {
  AdamWState adamw;
  std::vector<TensorValue> exp_avg;     ///< empty before the first step
  std::vector<TensorValue> exp_avg_sq;  ///< likewise
};

struct LoadedCheckpoint {
  std::vector<NamedTensor> parameters;  ///< `module.` and `_orig_mod.` prefixes stripped, in the file's order
  std::optional<LoadedOptimizer> optimizer;
  std::optional<std::int64_t> epoch;
  std::optional<double> val_acc;
  std::optional<double> val_auc;
  nlohmann::ordered_json config = nlohmann::ordered_json::object();  ///< empty when the file has none
  nlohmann::ordered_json engine = nlohmann::ordered_json::object();
};

/// Reads a .pt (a training's dictionary with `model_state_dict` or `state_dict`, or a bare state dict) or, by
/// its content, a .safetensors (config and engine from JSON in its metadata). Every byte is verified first.
/// Throws IoError, or DataError in one line: an inert node anywhere (naming it and the key), a state dict
/// that holds something else than tensors, an optimizer that is not AdamW's or whose layout is broken, an
/// `engine.format_version` newer than this one.
[[nodiscard]] LoadedCheckpoint read_training_checkpoint(const std::filesystem::path& path);

/// Where a parameter is loaded to.
struct ParameterTarget {
  std::string name;
  std::vector<std::int64_t> shape;
  std::span<float> elements;  ///< overwritten, row-major
};

/// Loads `tensors` into `targets`, which must have exactly these names and shapes and floating-point
/// elements. Checks all before it writes any; throws DataError in one line that begins with `source` (the
/// file's name) and lists missing, unexpected and mismatched ones.
void load_parameters(const std::string& source, std::span<const NamedTensor> tensors,
                     std::span<const ParameterTarget> targets);

/// Loads AdamW's moments into `exp_avg` and `exp_avg_sq`, both in order of registration and of equal names
/// and shapes; zeros when the optimizer made no step. Throws DataError like load_parameters.
void load_moments(const std::string& source, const LoadedOptimizer& optimizer,
                  std::span<const ParameterTarget> exp_avg, std::span<const ParameterTarget> exp_avg_sq);

}  // namespace voca::engine
