#include "engine/rendezvous/env_vars.h"

#include <unistd.h>

#include <string_view>

#include "engine/base/error.h"
#include "engine/base/text.h"

namespace voca::engine {

EnvVars EnvVars::of_process() {
  std::map<std::string, std::string> values;
  for (char** entry = ::environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::size_t equals = text.find('=');
    if (equals != text.npos) values.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return EnvVars(std::move(values));
}

std::string EnvVars::text(const std::string& name) const {
  const auto value = values_.find(name);
  return value == values_.end() ? std::string() : value->second;
}

std::optional<std::int64_t> EnvVars::number(const std::string& name, std::int64_t low,
                                            std::int64_t high) const {
  const std::string value = text(name);
  if (value.empty()) return std::nullopt;
  const auto result = number_in<std::int64_t>(value);
  if (!result || *result < low || *result > high)
    throw UsageError("{}: is \"{}\", expected a whole number from {} to {}", name, value, low, high);
  return result;
}

}  // namespace voca::engine
