#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace voca::engine {

/// Columns of what is printed where there is no terminal.
inline constexpr int kDefaultColumns = 80;

/// Columns to lay text out for that goes to `descriptor`: COLUMNS where it is set to a number, else those of
/// the terminal, 80 where it is none.
[[nodiscard]] int terminal_columns(int descriptor);
/// Columns of the terminal that `descriptor` is; 0 where it is none.
[[nodiscard]] int window_columns(int descriptor);

/// Stands for a space that wrapped() breaks no line at.
inline constexpr char kFixedSpace = '\x1f';

/// `text` with its long lines broken at spaces to fit `columns`; what continues a line is indented by
/// `indent`. Words that are too long stay whole, spaces at the beginning of a line stay.
[[nodiscard]] std::string wrapped(std::string_view text, int columns, std::size_t indent);

/// Writes all of `text` in as few calls of write() as it takes, one where it fits a pipe's buffer: of several
/// processes that share a stream no line breaks into another's. What cannot be written is dropped.
void write_at_once(int descriptor, std::string_view text);

}  // namespace voca::engine
