#include "engine/base/text.h"

#include <fmt/format.h>

#include <iterator>

namespace voca::engine {
namespace {

/// A character and its length in bytes; for a byte that is not UTF-8, `valid` is false and `code` the byte.
struct Character {
  char32_t code = 0;
  std::size_t length = 1;
  bool valid = true;
};

/// First character of `text`, which is not empty.
Character first_of(std::string_view text) {
  const auto byte = [&](std::size_t at) {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return {.code = first};
  const Character invalid{.code = first, .valid = false};
  if (first < 0xC2 || first > 0xF4) return invalid;
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  unsigned low = 0x80;
  unsigned high = 0xBF;
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  if (byte(1) < low || byte(1) > high) return invalid;
  char32_t code = first & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return invalid;
    code = code << 6U | (byte(i) & 0x3FU);
  }
  return {.code = code, .length = length};
}

/// Whether a terminal interprets the character instead of displaying it.
bool is_control(char32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) ||        // C0, DEL, C1
         code == 0x061C || code == 0x200E || code == 0x200F ||  // directional marks
         (code >= 0x2028 && code <= 0x202E) ||                  // line ends, embeddings, overrides
         (code >= 0x2066 && code <= 0x2069);                    // isolates
}

/// Appends the characters that begin within the first `max_bytes` bytes, escaped, and "…" if any remain.
void append(std::string& out, std::string_view text, std::size_t max_bytes, bool keep_line_ends) {
  std::size_t at = 0;
  while (at < text.size() && at < max_bytes) {
    const Character c = first_of(text.substr(at));
    if (c.valid && (!is_control(c.code) || (keep_line_ends && c.code == '\n'))) {
      out += text.substr(at, c.length);
    } else {
      const auto code = static_cast<unsigned>(c.code);
      fmt::format_to(std::back_inserter(out),
                     fmt::runtime(c.valid && code >= 0x7F ? "\\u{:04x}" : "\\x{:02x}"), code);
    }
    at += c.length;
  }
  if (at < text.size()) out += "…";
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const Character c = first_of(text.substr(at));
    if (!c.valid) return false;
    at += c.length;
  }
  return true;
}

std::string printable(std::string_view text, std::size_t max_bytes) {
  std::string out;
  append(out, text, max_bytes, /*keep_line_ends=*/false);
  return out;
}

std::string printable_lines(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  append(out, text, text.size(), /*keep_line_ends=*/true);
  return out;
}

}  // namespace voca::engine
