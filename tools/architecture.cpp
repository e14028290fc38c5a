#include "tools/architecture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "model/registry.h"
#include "tools/options/common_rows.h"

namespace voca::tools {

using engine::DataError;
using engine::UsageError;
using nlohmann::ordered_json;

namespace {

constexpr int kMaxDepth = 4;           // maximum nesting of an option in a config
constexpr std::size_t kMaxShown = 40;  // maximum length of a value in a message, in bytes

std::string shown(const ordered_json& value) {
  return engine::printable(engine::json_text(value), kMaxShown);
}

/// Distinct values of an option at the shallowest depth of a config where it occurs.
std::vector<ordered_json> values_of(const ordered_json& config, const char* name) {
  std::vector<const ordered_json*> level{&config};
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    std::vector<ordered_json> found;
    std::vector<const ordered_json*> below;
    for (const ordered_json* object : level) {
      for (const auto& [key, value] : object->items()) {
        if (value.is_object()) below.push_back(&value);
        if (key == name && !value.is_null() && std::find(found.begin(), found.end(), value) == found.end())
          found.push_back(value);
      }
    }
    if (!found.empty()) return found;
    level = std::move(below);
  }
  return {};
}

std::optional<std::int64_t> whole_number(const ordered_json& value) {
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    constexpr double kExact = 9007199254740992.0;  // 2^53
    if (std::abs(number) <= kExact && number == std::floor(number)) return static_cast<std::int64_t>(number);
  }
  return value.is_string() ? engine::number_in<std::int64_t>(value.get_ref<const std::string&>())
                           : std::nullopt;
}

/// Reads the config of one file. An invalid value is an error only if no option supplies a valid one.
class ConfigReader {
 public:
  ConfigReader(const std::string& path, const ordered_json& config) : path_(path), config_(config) {}

  /// The config's value; nullopt if it is missing, ambiguous or out of range (kFrames).
  [[nodiscard]] std::optional<std::int64_t> number(const char* name) const {
    const std::vector<ordered_json> values = values_of(config_, name);
    const auto value = values.size() == 1 ? whole_number(values[0]) : std::nullopt;
    return value && kFrames.holds(static_cast<double>(*value)) ? value : std::nullopt;
  }

  /// The option's value, or else the config's; nullopt if neither is set. Throws UsageError if they differ.
  [[nodiscard]] std::optional<std::int64_t> number(const char* name, std::int64_t option) const {
    const std::optional<std::int64_t> own = number(name);
    if (option == 0) return own;
    if (own && *own != option)
      throw UsageError("--{} {}: {} says {}; leave the option out", name, option, path_, *own);
    return option;
  }

  /// Why number() returns nullopt: "no num_heads", "num_heads is \"four\"".
  [[nodiscard]] std::string lack(const char* name) const {
    const std::vector<ordered_json> values = values_of(config_, name);
    if (values.empty()) return fmt::format("no {}", name);
    std::string text = fmt::format("{} {}", name, shown(values[0]));
    for (std::size_t i = 1; i < values.size(); ++i) text += " and " + shown(values[i]);
    return text;
  }

  [[nodiscard]] std::optional<model::PositionalEncoding> positional_encoding() const {
    const std::vector<ordered_json> values = values_of(config_, "positional_encoding");
    if (values.empty()) return std::nullopt;
    if (values[0] == false) return model::PositionalEncoding::kNone;
    if (values[0].is_string())
      if (const auto form = engine::value_named<model::PositionalEncoding>(values[0].get<std::string>()))
        return form;
    throw DataError("{}: its config has positional_encoding {}; none, sinusoidal and learned are known",
                    path_, shown(values[0]));
  }

 private:
  const std::string& path_;
  const ordered_json& config_;
};

std::vector<model::StateEntry> state_entries(std::span<const engine::NamedTensor> weights) {
  std::vector<model::StateEntry> state;
  for (const engine::NamedTensor& named : weights) {
    const std::vector<std::int64_t>& shape = named.tensor.shape;
    // Tensors with another number of dimensions are not parameters of the network; check_parameters() names
    // them.
    if (shape.size() == 1) state.push_back({named.name, {shape[0]}});
    if (shape.size() == 2) state.push_back({named.name, {shape[0], shape[1]}});
  }
  return state;
}

model::ModelConfig infer(const std::string& path, std::span<const engine::NamedTensor> weights,
                         const model::ModelConfig& hints) {
  try {
    return model::infer_config(state_entries(weights), hints);
  } catch (const DataError& error) {
    throw DataError("{}: {}", path, error.what());
  }
}

bool has_positions(std::span<const engine::NamedTensor> weights) {
  return std::ranges::find(weights, "pos_embed", &engine::NamedTensor::name) != weights.end();
}

}  // namespace

model::ModelConfig architecture_of(const std::string& path, std::span<const engine::NamedTensor> weights,
                                   const ordered_json& config, const CheckpointOptions& options) {
  const ConfigReader reader(path, config);
  model::ModelConfig hints;
  hints.dropout = 0;  // dropout is used only in training
  if (!has_positions(weights))
    hints.positional_encoding = reader.positional_encoding().value_or(hints.positional_encoding);
  const std::optional<std::int64_t> heads = reader.number("num_heads", options.num_heads);
  std::optional<std::int64_t> frames = 1;  // learned positions determine it by their shape
  if (!has_positions(weights)) frames = reader.number("seq_len", options.seq_len);
  if (!heads || !frames) {
    std::string lacks;
    std::string advice;
    const auto add = [&](const char* name, const char* argument) {
      lacks += (lacks.empty() ? "" : " and ") + reader.lack(name);
      advice += fmt::format(" --{} {}", name, argument);
    };
    if (!heads) add("num_heads", "N");
    if (!frames) add("seq_len", "T");
    throw DataError(
        "{}: {} in its config, and the shapes of weights do not tell; give{} as it was trained with", path,
        lacks, advice);
  }
  hints.num_heads = 1;
  hints.seq_len = *frames;
  model::ModelConfig result = infer(path, weights, hints);
  result.num_heads = *heads;
  if (result.hidden % *heads != 0) {
    if (options.num_heads != 0)
      throw UsageError("--num_heads {}: does not divide hidden {} of {}", *heads, result.hidden, path);
    throw DataError("{}: its config has num_heads {}, which does not divide its hidden {}", path, *heads,
                    result.hidden);
  }
  if (options.seq_len != 0 && options.seq_len != result.seq_len) {
    throw UsageError("--seq_len {}: {} has learned positions of {} frames; leave the option out",
                     options.seq_len, path, result.seq_len);
  }
  if (options.cross_attention && options.cross_attention != result.cross_attention) {
    throw UsageError("--cross_attention {}: the weights of {} are {}; leave the option out",
                     model::name_of(*options.cross_attention), path, model::name_of(result.cross_attention));
  }
  return result;
}

void check_same_architecture(const std::string& path, std::span<const engine::NamedTensor> weights,
                             const ordered_json& config, const model::ModelConfig& asked,
                             const std::string& data) {
  const ConfigReader reader(path, config);
  model::ModelConfig hints = asked;
  const std::optional<std::int64_t> heads = reader.number("num_heads");
  hints.num_heads = heads.value_or(1);
  hints.positional_encoding = asked.positional_encoding == model::PositionalEncoding::kLearned
                                  ? model::PositionalEncoding::kNone
                                  : asked.positional_encoding;
  if (!has_positions(weights))
    hints.positional_encoding = reader.positional_encoding().value_or(hints.positional_encoding);
  model::ModelConfig has = infer(path, weights, hints);
  has.num_heads = heads.value_or(asked.num_heads);

  std::string owns;
  std::string wishes;
  std::string advice;
  const auto compare = [&](const char* name, const auto& mine, const auto& theirs) {
    if (mine == theirs) return false;
    owns += fmt::format("{}{} {}", owns.empty() ? "" : ", ", name, mine);
    wishes += fmt::format("{}{}", wishes.empty() ? "" : ", ", theirs);
    return true;
  };
  const auto compare_option = [&](const char* name, const auto& mine, const auto& theirs) {
    if (compare(name, mine, theirs))
      advice += fmt::format("{} --{} {}", advice.empty() ? "give" : "", name, mine);
  };
  compare_option("hidden", has.hidden, asked.hidden);
  compare_option("num_layers", has.num_layers, asked.num_layers);
  compare_option("num_heads", has.num_heads, asked.num_heads);
  compare_option("num_classes", has.num_classes, asked.num_classes);
  compare_option("cross_attention", model::name_of(has.cross_attention),
                 model::name_of(asked.cross_attention));
  compare_option("positional_encoding", model::name_of(has.positional_encoding),
                 model::name_of(asked.positional_encoding));
  if (has_positions(weights)) compare_option("seq_len", has.seq_len, asked.seq_len);
  const bool other_visual_dim = compare("visual_dim", has.visual_dim, asked.visual_dim);
  const bool other_audio_dim = compare("audio_dim", has.audio_dim, asked.audio_dim);
  if (owns.empty()) return;
  if (other_visual_dim || other_audio_dim) {
    advice += fmt::format("{}train on embeddings as wide as those it was trained on ({} has others)",
                          advice.empty() ? "" : " and ", data);
  }
  throw DataError("--init_from {}: it has {}; asked for {}; {}, or leave --init_from out", path, owns, wishes,
                  advice);
}

}  // namespace voca::tools
