#pragma once

#include <cstddef>
#include <string>
#include <string_view>

// Text of unknown origin: UTF-8 validation and safe display.

namespace voca::engine {

/// Whether `text` is well-formed UTF-8 without surrogates (Unicode 15, table 3-7).
[[nodiscard]] bool is_utf8(std::string_view text);

/// Untrusted text as part of a line on a terminal. Control characters (including line ends and C1, which
/// terminals obey too), characters that change the writing direction, and bytes that are not UTF-8 are
/// escaped: "\x1b", "\u009b", "\u202e", "\xff". Truncated after `max_bytes`.
[[nodiscard]] std::string printable(std::string_view text, std::size_t max_bytes = 200);

/// Whole lines for a terminal, escaped as by printable(), but with line ends kept and without truncation.
[[nodiscard]] std::string printable_lines(std::string_view text);

}  // namespace voca::engine
