#pragma once

#include <cstddef>
#include <string>
#include <string_view>

// Text of unknown origin: whether it is UTF-8, and how it is shown.

namespace voca::engine {

/// Well-formed UTF-8 without surrogates (Unicode 15, table 3-7).
[[nodiscard]] bool is_utf8(std::string_view text);

/// Text from a file as a part of a line on a terminal. Spelled out are control characters (those of C1, which
/// a terminal obeys as well, and line ends among them), what turns the direction of writing round, and bytes
/// that are no UTF-8: "\x1b", "\u009b", "\u202e", "\xff". Cut after `max_bytes`.
[[nodiscard]] std::string printable(std::string_view text, std::size_t max_bytes = 200);

/// Whole lines for a terminal, whatever got into them: as printable(), but line ends stay and nothing is cut.
[[nodiscard]] std::string printable_lines(std::string_view text);

}  // namespace voca::engine
