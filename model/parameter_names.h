#pragma once

#include <span>
#include <string>
#include <string_view>

namespace voca::model {

inline constexpr std::string_view kNetworkName = "CrossModalTransformer";

/// Whether the network has a parameter of this name in any of its forms, of any number of layers.
[[nodiscard]] bool is_parameter_name(std::string_view name);

/// Whether this is a parameter that tells the network from its relatives, which share most of its names.
[[nodiscard]] bool is_telling_name(std::string_view name);

/// Another network that is known by the names of its parameters.
struct OtherNetwork {
  std::string_view title;   ///< "the three-branch detector"
  std::string_view marker;  ///< that begins a name of its parameters, or a part of it behind a dot
};

/// The one that has these parameters; nullptr where it is none that is known.
[[nodiscard]] const OtherNetwork* find_other_network(std::span<const std::string> names);

}  // namespace voca::model
