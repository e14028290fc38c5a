#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace voca::tools {

/// What to do instead of an option that other training programs have and the command has not: "use --dropout
/// P". Empty where `name`, with underscores, is none of them. `has` says whether the command has an option.
[[nodiscard]] std::string option_hint(std::string_view name,
                                      const std::function<bool(std::string_view)>& has);

}  // namespace voca::tools
