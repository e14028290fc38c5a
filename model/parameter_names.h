#pragma once

#include <span>
#include <string>
#include <string_view>

namespace voca::model {

inline constexpr std::string_view kNetworkName = "CrossModalTransformer";

/// Whether the network has a parameter of this name, in any variant and with any number of layers.
[[nodiscard]] bool is_parameter_name(std::string_view name);

/// Whether this parameter distinguishes the network from related ones, which share most names.
[[nodiscard]] bool is_telling_name(std::string_view name);

/// A related network, recognised by its parameter names.
struct OtherNetwork {
  std::string_view title;   ///< "the three-branch detector"
  std::string_view marker;  ///< prefix of a parameter name, or of its part after a dot
};

/// The related network with these parameters; nullptr if none is recognised.
[[nodiscard]] const OtherNetwork* find_other_network(std::span<const std::string> names);

}  // namespace voca::model
