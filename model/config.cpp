#include "model/config.h"

#include <algorithm>
#include <charconv>

#include "engine/base/error.h"
#include "model/parameter_table.h"

namespace voca::model {

using engine::DataError;
using engine::UsageError;

void validate(const ModelConfig& c) {
  const auto at_least = [](const char* option, std::int64_t value, std::int64_t minimum) {
    if (value < minimum) throw UsageError("--{} {}: must be at least {}", option, value, minimum);
  };
  at_least("visual_dim", c.visual_dim, 1);
  at_least("audio_dim", c.audio_dim, 1);
  at_least("hidden", c.hidden, 2);
  at_least("num_heads", c.num_heads, 1);
  at_least("num_layers", c.num_layers, 1);
  at_least("seq_len", c.seq_len, 1);
  at_least("num_classes", c.num_classes, 1);
  if (c.num_layers > kMaxLayers)
    throw UsageError("--num_layers {}: at most {} layers are supported", c.num_layers, kMaxLayers);
  if (c.hidden % c.num_heads != 0) {
    throw UsageError("--hidden {} is not divisible by --num_heads {}: choose one that is", c.hidden,
                     c.num_heads);
  }
  if (c.hidden % 2 != 0) throw UsageError("--hidden {}: must be even (the classifier halves it)", c.hidden);
  if (!(c.dropout >= 0 && c.dropout < 1)) throw UsageError("--dropout {}: must be in [0, 1)", c.dropout);
}

void validate(const LossConfig& c) {
  if (!(c.label_smoothing >= 0 && c.label_smoothing < 1))
    throw UsageError("--label_smoothing {}: must be in [0, 1)", c.label_smoothing);
  if (!(c.pos_weight > 0)) throw UsageError("--pos_weight {}: must be positive", c.pos_weight);
  if (!(c.contrastive_weight >= 0))
    throw UsageError("--contrastive_weight {}: must not be negative", c.contrastive_weight);
  if (!(c.temperature > 0)) throw UsageError("temperature {}: must be positive", c.temperature);
}

bool certain_fake_exceeds_half(const LossConfig& config) {
  const double s = config.label_smoothing;
  return config.pos_weight * s / 2 > 1 - s / 2;
}

namespace {

const StateEntry* find(const std::vector<StateEntry>& state, std::string_view name) {
  const auto entry =
      std::find_if(state.begin(), state.end(), [&](const StateEntry& e) { return e.name == name; });
  return entry == state.end() ? nullptr : &*entry;
}

const StateEntry& require_matrix(const std::vector<StateEntry>& state, std::string_view name) {
  const StateEntry* entry = find(state, name);
  if (entry == nullptr) throw DataError("the weights hold no {}: not a state dict of this network", name);
  if (entry->shape.rank() != 2)
    throw DataError("{} has shape {}: expected a matrix", name, engine::to_string(entry->shape));
  return *entry;
}

// Number of encoder layers: the largest index that occurs, plus one.
std::int64_t count_layers(const std::vector<StateEntry>& state) {
  constexpr std::string_view kPrefix = "temporal_encoder.layers.";
  std::int64_t layers = 0;
  for (const StateEntry& entry : state) {
    if (!entry.name.starts_with(kPrefix)) continue;
    std::int64_t index = -1;
    const char* end = entry.name.data() + entry.name.size();
    std::from_chars(entry.name.data() + kPrefix.size(), end, index);
    layers = std::max(layers, index + 1);
  }
  return layers;
}

}  // namespace

ModelConfig infer_config(const std::vector<StateEntry>& state, const ModelConfig& hints) {
  ModelConfig config = hints;
  const StateEntry& v_proj = require_matrix(state, "v_proj.0.weight");
  config.hidden = v_proj.shape[0];
  config.visual_dim = v_proj.shape[1];
  config.audio_dim = require_matrix(state, "a_proj.0.weight").shape[1];
  config.num_classes = require_matrix(state, "classifier.3.weight").shape[0];
  config.num_layers = count_layers(state);
  const bool bidirectional = find(state, "v2a_attn.in_proj_weight") != nullptr;
  config.cross_attention = bidirectional ? CrossAttention::kBidirectional : CrossAttention::kA2v;
  if (find(state, "pos_embed") != nullptr) {
    config.positional_encoding = PositionalEncoding::kLearned;
    config.seq_len = require_matrix(state, "pos_embed").shape[0];
  } else if (config.positional_encoding == PositionalEncoding::kLearned) {
    throw DataError("the config says learned positions, but the weights hold no pos_embed");
  }
  try {
    validate(config);
  } catch (const UsageError& error) {
    throw DataError("the weights spell an architecture that does not hold: {}", error.what());
  }
  return config;
}

}  // namespace voca::model
