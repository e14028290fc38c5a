#include "model/parameter_names.h"

#include <algorithm>
#include <array>
#include <unordered_set>

#include "model/parameter_table.h"

namespace voca::model {
namespace {

constexpr std::string_view kLayers = "temporal_encoder.layers.";
constexpr std::string_view kDigits = "0123456789";

/// In search order: a network may also have parameter names of a later one.
constexpr std::array<OtherNetwork, 4> kOtherNetworks = {{
    {"the three-branch detector", "cross_modal_branch."},
    {"the three-branch detector", "audio_only_branch."},
    {"the frame localisation network", "inconsistency_module."},
    {"the frame localisation network", "frame_classifier."},
}};

std::unordered_set<std::string> make_names() {
  std::unordered_set<std::string> names;
  for (const CrossAttention form : {CrossAttention::kA2v, CrossAttention::kBidirectional}) {
    const ModelConfig config{
        .num_layers = 1, .cross_attention = form, .positional_encoding = PositionalEncoding::kLearned};
    for (const engine::ParameterSpec& spec : make_parameter_table(config).specs) names.insert(spec.name);
  }
  return names;
}

}  // namespace

bool is_parameter_name(std::string_view name) {
  static const std::unordered_set<std::string> names = make_names();
  std::string first_layer(name);
  if (name.starts_with(kLayers)) {
    const std::string_view rest = name.substr(kLayers.size());
    const std::size_t digits = std::min(rest.find_first_not_of(kDigits), rest.size());
    if (digits == 0) return false;
    first_layer.replace(kLayers.size(), digits, "0");
  }
  return names.contains(first_layer);
}

bool is_telling_name(std::string_view name) {
  return name == "v_proj.0.weight" || name == "a_proj.0.weight";
}

const OtherNetwork* find_other_network(std::span<const std::string> names) {
  const auto* known =
      std::find_if(kOtherNetworks.begin(), kOtherNetworks.end(), [&](const OtherNetwork& network) {
        return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
          const std::size_t at = name.find(network.marker);
          return at == 0 || (at != std::string::npos && name[at - 1] == '.');
        });
      });
  return known == kOtherNetworks.end() ? nullptr : known;
}

}  // namespace voca::model
