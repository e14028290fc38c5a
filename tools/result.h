#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace voca::tools {

/// Prints a result to stdout for people, escaped by engine::printable_lines().
void print_text(std::string_view text);
/// Prints a result to stdout for programs (--json): one JSON object, always UTF-8. Characters that a terminal
/// would interpret are JSON escapes.
void print_json(const nlohmann::ordered_json& json);
/// Prints rows of data to stdout: unchanged to a file or a pipe, like print_text() to a terminal.
void print_data(std::string_view text);

}  // namespace voca::tools
