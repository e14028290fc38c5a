#include "tools/options/option_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace voca::tools {

bool Range::holds(double value) const {
  return (min_excluded ? value > min : value >= min) && (max_excluded ? value < max : value <= max);
}

std::string Range::text() const {
  if (std::isfinite(min) && std::isfinite(max) && !min_excluded && !max_excluded)
    return fmt::format("from {} to {}{}", min, max, unit);
  std::string limits;
  if (std::isfinite(min)) limits = fmt::format("{} {}", min_excluded ? "above" : "at least", min);
  if (std::isfinite(max)) {
    limits += fmt::format("{}{} {}", limits.empty() ? "" : " and ", max_excluded ? "below" : "at most", max);
  }
  return limits + std::string(unit);
}

std::optional<bool> parse_switch(std::string_view text) {
  std::string word(text);
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  for (const char* on : {"true", "yes", "on", "1"})
    if (word == on) return true;
  for (const char* off : {"false", "no", "off", "0"})
    if (word == off) return false;
  return std::nullopt;
}

engine::UsageError not_of_a_switch(std::string_view source, std::string_view text) {
  return engine::UsageError("{}: is \"{}\"; it is a switch: leave the value out, or write true or false",
                            source, text);
}

}  // namespace voca::tools
