#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

// All JSON of the program is parsed and written here. Input is untrusted: a parsed value has bounded depth,
// safe for recursion, and bounded object size, acceptable for linear key lookup.

namespace voca::engine {

/// Limits above which a text is refused: far beyond any file of this program.
struct JsonLimits {
  std::size_t depth = 64;          ///< nested arrays and objects
  std::size_t keys = 10'000;       ///< per object: ordered_json looks keys up linearly
  std::size_t items = 1'000'000;   ///< per array
  std::size_t values = 1'000'000;  ///< in total; each takes at most 64 bytes in addition to its text
};

/// Parses `text`. Throws DataError that begins with `where` (file, line, record) if it is not JSON, exceeds a
/// limit or has a duplicate key. Time and memory are linear in the text.
[[nodiscard]] nlohmann::ordered_json parse_json(std::string_view text, std::string_view where,
                                                const JsonLimits& limits = {});
/// Parses text that need not be JSON: an incomplete line, another program's output. Returns nullopt if it is
/// not JSON; throws as parse_json() for limits and duplicate keys.
[[nodiscard]] std::optional<nlohmann::ordered_json> parse_if_json(std::string_view text,
                                                                  std::string_view where,
                                                                  const JsonLimits& limits = {});

/// Appends a member without a lookup; the key must be new.
void add_member(nlohmann::ordered_json& object, std::string key, nlohmann::ordered_json value);

/// `json` as text: one line, or several with `indent` spaces per level. Always valid UTF-8: every invalid
/// byte in its strings (a file name, say) becomes U+FFFD.
[[nodiscard]] std::string json_text(const nlohmann::ordered_json& json, int indent = -1);

}  // namespace voca::engine
