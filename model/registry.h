#pragma once

// The networks that there are. A new one is a file beside crossmodal_transformer.cpp and its line in
// registry.cpp.

#include <span>
#include <string>
#include <string_view>

#include "model/network.h"

namespace voca::model {

[[nodiscard]] std::span<const NetworkKind* const> networks();
/// Throws UsageError naming --model and the networks that there are.
[[nodiscard]] const NetworkKind& network(std::string_view name);
/// Names of networks(), separated by "|".
[[nodiscard]] std::string network_names();

/// Measures by which checkpoints of some network can be selected, each once.
[[nodiscard]] std::vector<std::string_view> selecting_measures();

/// Titles of networks(): "A or B".
[[nodiscard]] std::string network_titles();
/// Whether a network has a parameter of this name, and whether it tells networks apart (NetworkKind).
[[nodiscard]] bool is_parameter_name(std::string_view name);
[[nodiscard]] bool is_telling_name(std::string_view name);

/// The functions of the network that `config.model` names.
[[nodiscard]] std::unique_ptr<engine::Model> make_network(const ModelConfig& config, const LossConfig& losses,
                                                          Activations activations = Activations::kKeep);
[[nodiscard]] StepFlops count_flops(const ModelConfig& config, const LossConfig& losses,
                                    std::int64_t batch_size, Activations activations = Activations::kKeep);

/// Infers network and architecture from a state dict's names and shapes. Heads, sequence length and dropout
/// are not visible there and come from `hints` (the checkpoint's config), except that learned positions
/// reveal seq_len. Throws DataError naming the entry that is missing or does not fit.
[[nodiscard]] ModelConfig infer_config(const std::vector<StateEntry>& state, const ModelConfig& hints);

}  // namespace voca::model
