#pragma once

#include <span>
#include <string>
#include <string_view>

namespace voca::tools {

/// Of `candidates` the one that a mistyped or shortened `name` means; empty where none is near: a few letters
/// off, or the only one that begins with it or that it begins with.
[[nodiscard]] std::string nearest(std::string_view name, std::span<const std::string_view> candidates);

}  // namespace voca::tools
