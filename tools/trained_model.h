#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/batches/batch_source.h"
#include "data/packed/dataset.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "engine/core/model.h"
#include "engine/trainer/evaluator.h"
#include "engine/trainer/memory_plan.h"
#include "model/config.h"
#include "tools/architecture.h"
#include "tools/feature_input.h"

namespace voca::tools {

/// A network loaded from a checkpoint, ready to predict.
struct TrainedNetwork {
  std::string path;  ///< for messages
  engine::LoadedCheckpoint checkpoint;
  std::vector<engine::NamedTensor> weights;  ///< finite, with the names and shapes of `model`; or empty
  model::ModelConfig config;
  std::unique_ptr<engine::Model> model;

  /// Decision threshold fitted on val; nullopt if the checkpoint has none.
  [[nodiscard]] std::optional<double> threshold() const;
  /// Rule by which the threshold was fitted ("balanced_acc"); empty if the checkpoint does not record it.
  [[nodiscard]] std::string threshold_by() const;
  /// Hash of the split that the network was trained on; empty if the checkpoint does not record it.
  [[nodiscard]] std::string split_hash() const;
};

/// Reads a .pt or .safetensors of any training script. The architecture comes from names, shapes and config,
/// and from `options` if these do not determine it. Throws DataError naming the file and what is missing or
/// wrong, UsageError for an option that contradicts the file.
[[nodiscard]] TrainedNetwork load_network(const std::filesystem::path& path,
                                          const CheckpointOptions& options = {});

/// Whether this program wrote the config. In other programs, split_ratios or label_smoothing may mean
/// something else.
[[nodiscard]] bool trained_here(const engine::LoadedCheckpoint& checkpoint);

/// How the tree that the network was trained on was packed; defaults if another program trained it.
[[nodiscard]] TreeOptions tree_options_of(const TrainedNetwork& network);

/// Throws DataError if the network takes other embedding widths than the dataset's, or inputs or targets that
/// packed data do not have, or if it is not a detector.
void check_fits(const TrainedNetwork& network, const data::Dataset& dataset);

struct PredictionOptions {
  std::int64_t batch_size = data::SamplerOptions{}.batch_size;
  int num_workers = data::BatchSourceOptions{}.num_workers;
  bool losses = false;    ///< also computes each sample's loss; every sample then needs a label
  engine::Ranks ranks{};  ///< ranks that share the work; every rank gets all predictions
  int ranks_here = 1;     ///< number of these on this node
  /// Rank 0, which alone has read the weights, broadcasts them: other nodes need not see the file.
  bool weights_of_first_rank = false;
};

/// Runs the networks in float32 over `samples` of `dataset`, each once, in ascending order; networks that
/// take the same frames do so in one pass, if the memory suffices for all. Samples with damaged frames are
/// left out with a warning that names them. Returns the predictions of each network.
[[nodiscard]] std::vector<engine::Predictions> predict_samples(
    std::span<const TrainedNetwork> networks, const std::shared_ptr<const data::Dataset>& dataset,
    const std::vector<std::int64_t>& samples, const PredictionOptions& options, engine::Device& device);
[[nodiscard]] engine::Predictions predict_samples(const TrainedNetwork& network,
                                                  const std::shared_ptr<const data::Dataset>& dataset,
                                                  const std::vector<std::int64_t>& samples,
                                                  const PredictionOptions& options, engine::Device& device);

/// Loads `weights` into `parameters`, whose compute type is not float64.
void load_weights(const std::string& path, std::span<const engine::NamedTensor> weights,
                  engine::ParameterStore& parameters);

/// Reads what --init_from names for `network`, of the configuration `asked`, on features in `data`. `key` is
/// --weights. Throws like load_network(), and DataError naming the differences between `asked` and the file.
[[nodiscard]] std::vector<engine::NamedTensor> read_initial_weights(const std::string& path,
                                                                    const std::string& key,
                                                                    const model::ModelConfig& asked,
                                                                    const std::string& data,
                                                                    const engine::Model& network);

}  // namespace voca::tools
