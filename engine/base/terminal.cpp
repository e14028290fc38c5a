#include "engine/base/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "engine/base/text.h"

namespace voca::engine {
namespace {

constexpr int kMinColumns = 20;
constexpr int kMaxColumns = 10000;

/// Length in UTF-8 characters, not bytes.
std::size_t length_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

void append_wrapped(std::string& out, std::string_view line, std::size_t columns, std::size_t indent) {
  const std::size_t start = std::min(line.find_first_not_of(' '), line.size());
  out += line.substr(0, start);
  std::size_t used = start;
  bool first = true;
  for (line.remove_prefix(start); !line.empty();) {
    // Spaces between two words of a line are kept, for table columns.
    const std::size_t gap = std::min(line.find_first_not_of(' '), line.size());
    const std::size_t end = std::min(line.find(' ', gap), line.size());
    const std::string_view word = line.substr(gap, end - gap);
    if (word.empty()) return;
    const std::size_t length = length_of(word);
    if (!first && used + gap + length > columns) {
      out += '\n';
      out.append(indent, ' ');
      used = indent + length;
    } else {
      out.append(gap, ' ');
      used += gap + length;
    }
    out += word;
    first = false;
    line.remove_prefix(end);
  }
}

}  // namespace

int window_columns(int descriptor) {
  winsize size{};
  return ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

int terminal_columns(int descriptor) {
  const char* const columns = std::getenv("COLUMNS");
  if (const auto number = number_in<int>(columns == nullptr ? "" : columns); number > 0)
    return std::clamp(*number, kMinColumns, kMaxColumns);
  const int window = window_columns(descriptor);
  return window > 0 ? std::clamp(window, kMinColumns, kMaxColumns) : kDefaultColumns;
}

std::string wrapped(std::string_view text, int columns, std::size_t indent) {
  const auto limit = static_cast<std::size_t>(std::max(columns, 1));
  std::string out;
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    append_wrapped(out, text.substr(0, newline), limit, std::min(indent, limit / 2));
    if (newline == text.npos) break;
    out += '\n';
    text.remove_prefix(newline + 1);
  }
  std::replace(out.begin(), out.end(), kFixedSpace, ' ');
  return out;
}

bool write_at_once(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace voca::engine
