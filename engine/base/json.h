#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

// The one place where JSON becomes values and values become JSON. Files and peers say what they like; what
// comes out of here has a depth that recursion can walk and objects of a size that looking keys up one by one
// can bear.

namespace voca::engine {

/// What a text may hold before it is refused: far beyond any file of this program.
struct JsonLimits {
  std::size_t depth = 64;          ///< of arrays and objects in each other
  std::size_t keys = 10'000;       ///< of one object: ordered_json looks them up one by one
  std::size_t items = 1'000'000;   ///< of one array
  std::size_t values = 1'000'000;  ///< in all; each takes 64 bytes at most beside its text
};

/// The value of `text`. Throws DataError that begins with `where` (file, line, record) for what is not JSON,
/// a limit passed, and a key that an object has twice. Takes time and memory in proportion to the text.
[[nodiscard]] nlohmann::ordered_json parse_json(std::string_view text, std::string_view where,
                                                const JsonLimits& limits = {});
/// The same for what need not be JSON: a line that was being written, a text of someone else. Nothing where
/// it is not; throws for the rest.
[[nodiscard]] std::optional<nlohmann::ordered_json> parse_if_json(std::string_view text,
                                                                  std::string_view where,
                                                                  const JsonLimits& limits = {});

/// Appends a member whose key is new, without looking for it.
void add_member(nlohmann::ordered_json& object, std::string key, nlohmann::ordered_json value);

/// `json` as text on one line, or with `indent` spaces a level on several. Always UTF-8: of other bytes in
/// its texts, in the name of a file, say, each becomes U+FFFD.
[[nodiscard]] std::string json_text(const nlohmann::ordered_json& json, int indent = -1);

}  // namespace voca::engine
