#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace voca::tools {

/// "0.1.0"
[[nodiscard]] std::string version();
/// Git revision of the build; ends in "-dirty" if files differed from it, "unknown" outside a checkout.
[[nodiscard]] std::string revision();
/// "voca-engine 0.1.0 (1a2b3c4d5e6f)"
[[nodiscard]] std::string version_line();
/// Versions of the program and of the libraries that numbers and files depend on.
[[nodiscard]] nlohmann::ordered_json versions();

}  // namespace voca::tools
