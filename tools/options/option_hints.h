#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace voca::tools {

/// Advice for an option of other training programs that the command does not have: "use --dropout P". Empty
/// if `name`, spelled with underscores, is none of these. `has` tells whether the command has an option.
[[nodiscard]] std::string option_hint(std::string_view name,
                                      const std::function<bool(std::string_view)>& has);

}  // namespace voca::tools
