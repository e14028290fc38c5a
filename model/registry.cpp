#include "model/registry.h"

#include <algorithm>
#include <array>

#include "engine/base/error.h"
#include "model/crossmodal_transformer.h"

namespace voca::model {
namespace {

constexpr std::array<const NetworkKind*, 1> kNetworks{&kCrossModalTransformer};

std::string joined(std::string_view NetworkKind::*text, std::string_view separator) {
  std::string all;
  for (const NetworkKind* const kind : kNetworks) {
    if (!all.empty()) all += separator;
    all += kind->*text;
  }
  return all;
}

}  // namespace

std::span<const NetworkKind* const> networks() {
  return kNetworks;
}

const NetworkKind& network(std::string_view name) {
  for (const NetworkKind* const kind : kNetworks)
    if (kind->name == name) return *kind;
  throw engine::UsageError("--model {}: expected {}", name, network_names());
}

std::string network_names() {
  return joined(&NetworkKind::name, "|");
}

std::vector<std::string_view> selecting_measures() {
  std::vector<std::string_view> names;
  for (const NetworkKind* const kind : kNetworks) {
    for (const std::string_view name : kind->selecting_measures())
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

std::string network_titles() {
  return joined(&NetworkKind::title, " or ");
}

bool is_parameter_name(std::string_view name) {
  return std::any_of(kNetworks.begin(), kNetworks.end(),
                     [&](const NetworkKind* kind) { return kind->has_parameter(name); });
}

bool is_telling_name(std::string_view name) {
  return std::any_of(kNetworks.begin(), kNetworks.end(),
                     [&](const NetworkKind* kind) { return kind->is_telling(name); });
}

std::unique_ptr<engine::Model> make_network(const ModelConfig& config, const LossConfig& losses,
                                            Activations activations) {
  return network(config.model).make(config, losses, activations);
}

StepFlops count_flops(const ModelConfig& config, const LossConfig& losses, std::int64_t batch_size,
                      Activations activations) {
  return network(config.model).count_flops(config, losses, batch_size, activations);
}

ModelConfig infer_config(const std::vector<StateEntry>& state, const ModelConfig& hints) {
  const auto* const known = std::find_if(kNetworks.begin(), kNetworks.end(),
                                         [&](const NetworkKind* kind) { return kind->recognise(state); });
  // The first network says what the weights lack if none recognises them.
  const NetworkKind& kind = known == kNetworks.end() ? *kNetworks.front() : **known;
  ModelConfig config = kind.infer(state, hints);
  config.model = kind.name;
  return config;
}

}  // namespace voca::model
