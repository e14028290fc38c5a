#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace voca::tools {

/// Prints to stdout what a command found out, for people: lines in which what is no text is spelled out.
void print_text(std::string_view text);
/// The same for programs (--json): one JSON object with every text as it is, and always UTF-8. What a
/// terminal would obey is written as JSON's escapes.
void print_json(const nlohmann::ordered_json& json);
/// Rows of data: as they are to a file or a pipe, to a terminal like print_text().
void print_data(std::string_view text);

}  // namespace voca::tools
