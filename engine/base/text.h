#pragma once

#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

// Text of unknown origin: numbers, UTF-8 validation and safe display.

namespace voca::engine {

/// Whether `text` is well-formed UTF-8 without surrogates (Unicode 15, table 3-7).
[[nodiscard]] bool is_utf8(std::string_view text);

/// Untrusted text as part of a line on a terminal. Control characters (including line ends and C1, which
/// terminals obey too), characters that change the writing direction, and bytes that are not UTF-8 are
/// escaped: "\x1b", "\u009b", "\u202e", "\xff". Truncated after `max_bytes`.
[[nodiscard]] std::string printable(std::string_view text, std::size_t max_bytes = 200);

/// The number that the whole text is; nullopt if it is something else or does not fit T.
template <typename T>
[[nodiscard]] std::optional<T> number_in(std::string_view text) {
  T number{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  return error == std::errc{} && rest == end ? std::optional<T>(number) : std::nullopt;
}

/// Whole lines for a terminal, escaped as by printable(), but with line ends kept and without truncation.
[[nodiscard]] std::string printable_lines(std::string_view text);

}  // namespace voca::engine
