#pragma once

#include <span>
#include <string>
#include <string_view>

namespace voca::model {

/// A related network that is not in the registry, recognised by its parameter names.
struct OtherNetwork {
  std::string_view title;   ///< "the three-branch detector"
  std::string_view marker;  ///< prefix of a parameter name, or of its part after a dot
};

/// The related network with these parameters; nullptr if none is recognised.
[[nodiscard]] const OtherNetwork* find_other_network(std::span<const std::string> names);

}  // namespace voca::model
