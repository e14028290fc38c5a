#pragma once

#include <span>
#include <string>
#include <string_view>

namespace voca::tools {

/// The candidate that a mistyped or shortened `name` means: the nearest one within a few edits, or the only
/// one of which `name` is a prefix or that is a prefix of `name`. Empty if there is none.
[[nodiscard]] std::string did_you_mean(std::string_view name, std::span<const std::string_view> candidates);

}  // namespace voca::tools
