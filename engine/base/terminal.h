#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace voca::engine {

/// Columns of output that does not go to a terminal.
inline constexpr int kDefaultColumns = 80;

/// Columns for text written to `descriptor`: COLUMNS if set to a number, else the terminal's width, else 80.
[[nodiscard]] int terminal_columns(int descriptor);
/// Width of the terminal at `descriptor` in columns; 0 if it is not a terminal.
[[nodiscard]] int window_columns(int descriptor);

/// Stand-in for a space at which wrapped() must not break a line.
inline constexpr char kFixedSpace = '\x1f';

/// `text` with long lines broken at spaces to fit `columns`; continuation lines are indented by `indent`.
/// Words longer than a line stay whole; leading spaces of a line stay.
[[nodiscard]] std::string wrapped(std::string_view text, int columns, std::size_t indent);

/// Writes all of `text` with as few write() calls as possible, one if it fits a pipe's buffer, so that lines
/// of processes that share a stream do not interleave. Returns false with errno set if not all can be
/// written; on stderr that is no reason to end a training.
bool write_at_once(int descriptor, std::string_view text);

}  // namespace voca::engine
