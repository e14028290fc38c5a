#include "tools/trained_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "data/batches/device_batches.h"
#include "engine/base/error.h"
#include "engine/core/ensemble.h"
#include "model/metrics/threshold.h"
#include "model/registry.h"
#include "model/tasks/detection.h"
#include "tools/network_weights.h"
#include "tools/options/train_options.h"
#include "tools/run_memory.h"

namespace voca::tools {

using engine::DataError;
using nlohmann::ordered_json;

namespace {

/// Value of an option in a file of this program; nullopt if it is missing or of another type.
template <typename T>
std::optional<T> option_of(const ordered_json& config, const char* name) {
  const auto entry = config.find(name);
  if (entry == config.end()) return std::nullopt;
  if constexpr (std::is_same_v<T, std::string>) {
    if (entry->is_string()) return entry->template get<std::string>();
  } else if constexpr (std::is_integral_v<T>) {
    if (entry->is_number_integer()) return entry->template get<T>();
  } else {
    if (entry->is_number()) return entry->template get<T>();
  }
  return std::nullopt;
}

model::LossConfig losses(const engine::LoadedCheckpoint& checkpoint) {
  model::LossConfig config;
  if (!trained_here(checkpoint)) return config;
  config.label_smoothing = option_of<double>(checkpoint.config, "label_smoothing").value_or(0);
  config.pos_weight = option_of<double>(checkpoint.engine, "pos_weight").value_or(1);
  return config;
}

/// The model's parameters by name and shape; `elements` is left empty.
std::vector<engine::ParameterTarget> targets_of(const std::vector<engine::ParameterSpec>& specs) {
  std::vector<engine::ParameterTarget> targets;
  for (const engine::ParameterSpec& spec : specs) {
    const std::span<const std::int64_t> extents = spec.shape.extents();
    targets.push_back({.name = spec.name, .shape = {extents.begin(), extents.end()}, .elements = {}});
  }
  return targets;
}

/// Throws DataError unless the threshold is a probability or infinity, at which no sample counts as real.
void check_threshold(const TrainedNetwork& network) {
  const double threshold = network.threshold().value_or(0.5);
  if (threshold >= 0 && threshold <= model::kMaxThreshold) return;
  throw DataError(
      "{}: its decision threshold {} is not between 0 and 1: the file was changed or damaged; copy it again",
      network.path, threshold);
}

}  // namespace

bool trained_here(const engine::LoadedCheckpoint& checkpoint) {
  return checkpoint.engine.contains("split_hash");
}

std::optional<double> TrainedNetwork::threshold() const {
  return option_of<double>(checkpoint.engine, "threshold");
}

std::string TrainedNetwork::threshold_by() const {
  return option_of<std::string>(checkpoint.engine, "threshold_by").value_or("");
}

std::string TrainedNetwork::split_hash() const {
  return option_of<std::string>(checkpoint.engine, "split_hash").value_or("");
}

TrainedNetwork load_network(const std::filesystem::path& path, const CheckpointOptions& options) {
  TrainedNetwork network;
  network.path = path.string();
  network.checkpoint = engine::read_training_checkpoint(path);
  network.weights = find_weights(network.path, network.checkpoint, options.weights).tensors;
  network.config = architecture_of(network.path, network.weights, network.checkpoint.config, options);
  network.model = model::make_network(network.config, losses(network.checkpoint));
  engine::check_parameters(network.path, network.weights, targets_of(network.model->parameters()));
  engine::check_finite(network.path, network.weights);
  check_threshold(network);
  return network;
}

TreeOptions tree_options_of(const TrainedNetwork& network) {
  if (!trained_here(network.checkpoint)) return {};
  const ordered_json& config = network.checkpoint.config;
  TrainArguments recorded;
  TreeOptions& tree = recorded.options.tree;
  recorded.set.read_back(config, tree.split_ratios);
  recorded.set.read_back(config, tree.split_seed);
  recorded.set.read_back(config, tree.group_by);
  return tree;
}

void check_fits(const TrainedNetwork& network, const data::Dataset& dataset) {
  const std::int64_t visual = dataset.dim(data::Stream::kVisual);
  const std::int64_t audio = dataset.dim(data::Stream::kAudio);
  if (network.config.visual_dim != visual || network.config.audio_dim != audio) {
    throw DataError("{}: takes visual embeddings of width {} and audio of {}, {} has {} and {}", network.path,
                    network.config.visual_dim, network.config.audio_dim, dataset.path().string(), visual,
                    audio);
  }
  const engine::ModelSignature& signature = network.model->signature();
  data::BatchSourceOptions batches;
  batches.seq_len = network.config.seq_len;
  engine::check_provides(data::batch_spec(batches, visual, audio), signature.batch, dataset.path().string());
  const auto is_logits = [](const engine::TensorSpec& output) { return output.name == model::kLogits; };
  if (std::none_of(signature.outputs.begin(), signature.outputs.end(), is_logits)) {
    throw DataError("{}: is of network {}, which is not a detector: eval and predict need its output {}",
                    network.path, network.config.model, model::kLogits);
  }
}

void load_weights(const std::string& path, std::span<const engine::NamedTensor> weights,
                  engine::ParameterStore& parameters) {
  parameters.assign([&](std::vector<engine::Tensor>& values) {
    std::vector<engine::ParameterTarget> targets = targets_of(parameters.specs());
    for (std::size_t id = 0; id < values.size(); ++id)
      targets[id].elements = {values[id].as<float>(), static_cast<std::size_t>(values[id].elements())};
    engine::load_parameters(path, weights, targets);
  });
}

std::vector<engine::NamedTensor> read_initial_weights(const std::string& path, const std::string& key,
                                                      const model::ModelConfig& asked,
                                                      const std::string& data, const engine::Model& network) {
  const engine::LoadedCheckpoint checkpoint = engine::read_training_checkpoint(path);
  std::vector<engine::NamedTensor> weights = find_weights(path, checkpoint, key).tensors;
  check_same_architecture(path, weights, checkpoint.config, asked, data);
  engine::check_parameters(path, weights, targets_of(network.parameters()));
  engine::check_finite(path, weights);
  return weights;
}

namespace {

/// Throws DataError if an output is not finite: finite weights may still overflow in the forward pass.
void check_outputs(const TrainedNetwork& network, const data::Dataset& dataset,
                   const engine::Predictions& predictions) {
  for (const engine::PredictionColumn& output : predictions.outputs) {
    const auto bad = std::find_if_not(output.values.begin(), output.values.end(),
                                      [](double value) { return std::isfinite(value); });
    if (bad == output.values.end()) continue;
    const auto row = static_cast<std::size_t>((bad - output.values.begin()) / output.width);
    throw DataError(
        "{}: the score of {} in {} is {}; its weights are too large to compute with: use an earlier checkpoint",
        network.path, dataset.id(predictions.samples[row]), dataset.path().string(), *bad);
  }
}

/// Networks that take the same frames.
using Members = std::vector<const TrainedNetwork*>;

std::vector<const engine::Model*> models_of(const Members& members) {
  std::vector<const engine::Model*> models;
  for (const TrainedNetwork* member : members) models.push_back(member->model.get());
  return models;
}

/// What one pass of the members over the data needs.
RunNeeds needs_of(const Members& members, const engine::Model& ensemble, std::size_t samples,
                  const PredictionOptions& options, engine::Device& device) {
  const model::ModelConfig& config = members.front()->config;
  return {.network = &ensemble,
          .request = {.eval_batch = options.batch_size, .world_size = options.ranks.world_size()},
          .backend = {.device = device.kind(), .gemm_library = device.gemm_library()},
          .batches = {.sampler = {.training = false,
                                  .batch_size = options.batch_size,
                                  .rank = options.ranks.rank(),
                                  .world_size = options.ranks.world_size()},
                      .seq_len = config.seq_len,
                      .num_workers = options.num_workers,
                      .residency = data::Residency::kDisk,
                      .max_bad_samples = std::numeric_limits<std::int64_t>::max()},
          .pinned = true,
          .visual_dim = config.visual_dim,
          .audio_dim = config.audio_dim,
          .predictions = static_cast<std::int64_t>(samples),
          .operations = [&members](std::int64_t batch) {
            double operations = 0;
            for (const TrainedNetwork* member : members)
              operations += model::count_flops(member->config, {}, batch).all();
            return operations;
          }};
}

void load_weights(const Members& members, engine::ParameterStore& parameters) {
  parameters.assign([&](std::vector<engine::Tensor>& values) {
    auto value = values.begin();
    for (const TrainedNetwork* member : members) {
      std::vector<engine::ParameterTarget> targets = targets_of(member->model->parameters());
      for (engine::ParameterTarget& target : targets) {
        target.elements = {value->as<float>(), static_cast<std::size_t>(value->elements())};
        ++value;
      }
      engine::load_parameters(member->path, member->weights, targets);
    }
  });
}

/// One pass of the members over the data, with the predictions of each. The memory has been planned.
std::vector<engine::Predictions> predict_together(const Members& members,
                                                  const std::shared_ptr<const data::Dataset>& dataset,
                                                  const std::vector<std::int64_t>& samples,
                                                  const PredictionOptions& options, engine::Device& device) {
  const engine::Ensemble ensemble(models_of(members));
  const RunNeeds needs = needs_of(members, ensemble, samples.size(), options, device);
  const std::unique_ptr<engine::BatchSource> source =
      data::make_device_batches(dataset, samples, needs.batches, /*pinned=*/true, device);
  engine::Workspace workspace(ensemble, needs.request, device);
  if (!options.weights_of_first_rank || options.ranks.first()) load_weights(members, workspace.parameters());
  if (options.weights_of_first_rank && !options.ranks.alone()) {
    options.ranks.main->broadcast("weights of the checkpoint", workspace.parameters().weights(), 0,
                                  workspace.context().stream);
  }
  engine::Evaluator evaluator(ensemble, *source, workspace, options.losses, options.ranks);
  const engine::Predictions& predictions = *evaluator.run();
  if (predictions.size() == 0 && !samples.empty()) {
    throw DataError("{}: all {} videos are damaged (their checksums do not hold); copy or pack it again",
                    dataset->path().string(), samples.size());
  }
  std::vector<engine::Predictions> each = ensemble.of_members(predictions);
  for (std::size_t i = 0; i < members.size(); ++i) check_outputs(*members[i], *dataset, each[i]);
  return each;
}

/// Appends to `passes` as few as the memory suffices for, or throws its Error (exit code 74) with the path of
/// the checkpoint that does not fit alone. Several ranks, whose nodes may differ in memory, do not look for
/// smaller passes.
void plan_passes(const Members& members, std::size_t samples, const PredictionOptions& options,
                 engine::Device& device, std::vector<Members>& passes) {
  const bool one_output_list = members.size() <= engine::TensorList::kCapacity;
  if (one_output_list) {
    const engine::Ensemble ensemble(models_of(members));
    const RunNeeds needs = needs_of(members, ensemble, samples, options, device);
    const Room room = look_at_room(device, options.ranks, options.ranks_here);
    if (members.size() == 1 || !options.ranks.alone() || fits(plan_run(needs, room), needs, room)) {
      try {
        static_cast<void>(plan_run_that_fits(needs, room));
      } catch (const engine::Error& error) {
        throw engine::Error(error.code(), fmt::format("{}: {}", members.front()->path, error.what()));
      }
      passes.push_back(members);
      return;
    }
  }
  const auto middle = members.begin() + std::ssize(members) / 2;
  plan_passes({members.begin(), middle}, samples, options, device, passes);
  plan_passes({middle, members.end()}, samples, options, device, passes);
}

}  // namespace

std::vector<engine::Predictions> predict_samples(std::span<const TrainedNetwork> networks,
                                                 const std::shared_ptr<const data::Dataset>& dataset,
                                                 const std::vector<std::int64_t>& samples,
                                                 const PredictionOptions& options, engine::Device& device) {
  std::map<std::int64_t, Members> by_frames;
  for (const TrainedNetwork& network : networks) {
    check_fits(network, *dataset);
    by_frames[network.config.seq_len].push_back(&network);
  }
  std::vector<Members> passes;
  for (const auto& [frames, members] : by_frames)
    plan_passes(members, samples.size(), options, device, passes);
  std::vector<engine::Predictions> all(networks.size());
  for (const Members& members : passes) {
    std::vector<engine::Predictions> each = predict_together(members, dataset, samples, options, device);
    for (std::size_t i = 0; i < members.size(); ++i)
      all[static_cast<std::size_t>(members[i] - networks.data())] = std::move(each[i]);
  }
  return all;
}

engine::Predictions predict_samples(const TrainedNetwork& network,
                                    const std::shared_ptr<const data::Dataset>& dataset,
                                    const std::vector<std::int64_t>& samples,
                                    const PredictionOptions& options, engine::Device& device) {
  return std::move(predict_samples(std::span(&network, 1), dataset, samples, options, device).front());
}

}  // namespace voca::tools
