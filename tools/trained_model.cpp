#include "tools/trained_model.h"

#include <fmt/format.h>

#include <limits>

#include "data/device_batches.h"
#include "engine/error.h"
#include "model/crossmodal_transformer.h"

namespace voca::tools {

using engine::DataError;
using nlohmann::ordered_json;

namespace {

/// An option's value in a config that anybody may have written; nothing where it is missing or of another
/// type.
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

std::vector<model::StateEntry> state_entries(const std::string& path,
                                             const engine::LoadedCheckpoint& checkpoint) {
  std::vector<model::StateEntry> state;
  for (const engine::NamedTensor& named : checkpoint.parameters) {
    const std::vector<std::int64_t>& shape = named.tensor.shape;
    engine::Shape extents;
    switch (shape.size()) {
      case 1:
        extents = {shape[0]};
        break;
      case 2:
        extents = {shape[0], shape[1]};
        break;
      default:
        throw DataError("{}: {} has {} dimensions: not a state dict of this network", path, named.name,
                        shape.size());
    }
    state.push_back({named.name, extents});
  }
  return state;
}

model::ModelConfig architecture(const std::string& path, const engine::LoadedCheckpoint& checkpoint) {
  model::ModelConfig hints;
  const ordered_json& config = checkpoint.config;
  const auto required = [&](const char* name) {
    const auto value = option_of<std::int64_t>(config, name);
    if (!value) {
      throw DataError(
          "{}: its config has no {}, which the weights do not tell; a checkpoint to evaluate carries "
          "config['{}']",
          path, name, name);
    }
    return *value;
  };
  hints.num_heads = required("num_heads");
  hints.seq_len = required("seq_len");
  hints.dropout = option_of<double>(config, "dropout").value_or(hints.dropout);
  if (const auto form = option_of<std::string>(config, "positional_encoding"))
    hints.positional_encoding = model::parse_positional_encoding(*form);
  try {
    return model::infer_config(state_entries(path, checkpoint), hints);
  } catch (const DataError& error) {
    throw DataError("{}: {}", path, error.what());
  }
}

model::LossConfig losses(const engine::LoadedCheckpoint& checkpoint) {
  model::LossConfig config;
  config.label_smoothing = option_of<double>(checkpoint.config, "label_smoothing").value_or(0);
  config.pos_weight = option_of<double>(checkpoint.engine, "pos_weight").value_or(1);
  return config;
}

}  // namespace

std::optional<double> TrainedNetwork::threshold() const {
  return option_of<double>(checkpoint.engine, "threshold");
}

std::string TrainedNetwork::threshold_by() const {
  return option_of<std::string>(checkpoint.engine, "threshold_by").value_or("");
}

std::string TrainedNetwork::split_hash() const {
  return option_of<std::string>(checkpoint.engine, "split_hash").value_or("");
}

TrainedNetwork load_network(const std::filesystem::path& path) {
  TrainedNetwork network;
  network.path = path.string();
  network.checkpoint = engine::read_training_checkpoint(path);
  network.config = architecture(network.path, network.checkpoint);
  network.model = model::make_crossmodal_transformer(network.config, losses(network.checkpoint));
  return network;
}

TreeOptions tree_options_of(const ordered_json& config) {
  TreeOptions options;
  if (const auto ratios = option_of<std::string>(config, "split_ratios"))
    options.split_ratios = data::parse_split_ratios(*ratios);
  options.split_seed = option_of<std::uint64_t>(config, "split_seed").value_or(options.split_seed);
  options.group_by = option_of<std::string>(config, "group_by").value_or(options.group_by);
  return options;
}

void check_widths(const TrainedNetwork& network, const data::Dataset& dataset) {
  const std::int64_t visual = dataset.dim(data::Stream::kVisual);
  const std::int64_t audio = dataset.dim(data::Stream::kAudio);
  if (network.config.visual_dim != visual || network.config.audio_dim != audio) {
    throw DataError("{}: takes visual embeddings of width {} and audio of {}, {} has {} and {}", network.path,
                    network.config.visual_dim, network.config.audio_dim, dataset.path().string(), visual,
                    audio);
  }
}

void load_weights(const std::string& path, const engine::LoadedCheckpoint& checkpoint,
                  engine::ParameterStore& parameters) {
  parameters.assign([&](const std::vector<engine::Tensor>& values) {
    std::vector<engine::ParameterTarget> targets;
    for (std::size_t id = 0; id < values.size(); ++id) {
      const engine::ParameterSpec& spec = parameters.specs()[id];
      const std::span<const std::int64_t> extents = spec.shape.extents();
      targets.push_back(
          {.name = spec.name,
           .shape = {extents.begin(), extents.end()},
           .elements = {values[id].as<float>(), static_cast<std::size_t>(values[id].elements())}});
    }
    engine::load_parameters(path, checkpoint.parameters, targets);
  });
}

engine::Predictions predict_samples(const TrainedNetwork& network,
                                    const std::shared_ptr<const data::Dataset>& dataset,
                                    const std::vector<std::int64_t>& samples,
                                    const PredictionOptions& options, engine::Device& device) {
  check_widths(network, *dataset);
  const std::unique_ptr<engine::BatchSource> source =
      data::make_device_batches(dataset, samples,
                                {.sampler = {.training = false,
                                             .batch_size = options.batch_size,
                                             .rank = options.ranks.rank(),
                                             .world_size = options.ranks.world_size()},
                                 .seq_len = network.config.seq_len,
                                 .num_workers = static_cast<int>(options.num_workers),
                                 .residency = data::Residency::kDisk,
                                 .max_bad_samples = std::numeric_limits<std::int64_t>::max()},
                                /*pinned=*/true, device);
  engine::Workspace workspace(*network.model, {.eval_batch = options.batch_size}, device);
  load_weights(network.path, network.checkpoint, workspace.parameters());
  engine::Evaluator evaluator(*network.model, *source, workspace, options.losses, options.ranks);
  engine::Predictions predictions = *evaluator.run();
  if (predictions.size() == 0 && !samples.empty()) {
    throw DataError("{}: all {} videos are damaged (their checksums do not hold); copy or pack it again",
                    dataset->path().string(), samples.size());
  }
  return predictions;
}

}  // namespace voca::tools
