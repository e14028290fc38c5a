#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/packed/dataset.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "engine/core/model.h"
#include "engine/trainer/evaluator.h"
#include "engine/trainer/memory.h"
#include "model/config.h"
#include "tools/architecture.h"
#include "tools/feature_input.h"

namespace voca::tools {

/// A checkpoint read back as a network that can predict.
struct TrainedNetwork {
  std::string path;  ///< for messages
  engine::LoadedCheckpoint checkpoint;
  std::vector<engine::NamedTensor> weights;  ///< finite, with the names and shapes of `model`; or none
  model::ModelConfig config;
  std::unique_ptr<engine::Model> model;

  /// The decision threshold fitted on val; nothing where the checkpoint carries none.
  [[nodiscard]] std::optional<double> threshold() const;
  /// The rule it was fitted by ("balanced_acc"); empty where the checkpoint does not say.
  [[nodiscard]] std::string threshold_by() const;
  /// Of the split it was trained on; empty where the checkpoint does not say.
  [[nodiscard]] std::string split_hash() const;
};

/// Reads a .pt or .safetensors of any training script. The architecture comes from names, shapes and config,
/// and from `options` where these do not tell. Throws DataError naming the file and what is missing or wrong,
/// UsageError for an option that contradicts the file.
[[nodiscard]] TrainedNetwork load_network(const std::filesystem::path& path,
                                          const CheckpointOptions& options = {});

/// Whether a training of this program wrote the config. What other programs call split_ratios or
/// label_smoothing need not be the same thing.
[[nodiscard]] bool trained_here(const engine::LoadedCheckpoint& checkpoint);

/// How the tree that the network was trained on is packed.
[[nodiscard]] TreeOptions tree_options_of(const TrainedNetwork& network);

/// Throws DataError naming both where the network does not take the dataset's widths.
void check_widths(const TrainedNetwork& network, const data::Dataset& dataset);

struct PredictionOptions {
  std::int64_t batch_size = 64;
  std::int64_t num_workers = 2;
  bool losses = false;    ///< also each sample's loss; every sample needs a label then
  engine::Ranks ranks{};  ///< that share the work; every one gets all predictions
  int ranks_here = 1;     ///< of those, on this node
  /// The weights are rank 0's, which alone has read them: other nodes need not see the file.
  bool weights_of_first_rank = false;
};

/// Runs the network in float32 over `samples` of `dataset`, each once, ascending; samples whose frames are
/// damaged are left out with a warning that names them.
[[nodiscard]] engine::Predictions predict_samples(const TrainedNetwork& network,
                                                  const std::shared_ptr<const data::Dataset>& dataset,
                                                  const std::vector<std::int64_t>& samples,
                                                  const PredictionOptions& options, engine::Device& device);

/// Loads `weights` into `parameters`, whose compute type is not float64.
void load_weights(const std::string& path, std::span<const engine::NamedTensor> weights,
                  engine::ParameterStore& parameters);

/// Loads what --init_from names into `parameters`, those of a network `asked` for `data` (a path). `key`:
/// --weights. Throws like load_network, and DataError naming what `asked` and the file have otherwise.
void load_initial_weights(const std::string& path, const std::string& key, const model::ModelConfig& asked,
                          const std::string& data, engine::ParameterStore& parameters);

}  // namespace voca::tools
