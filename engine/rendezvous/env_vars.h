#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

namespace voca::engine {

/// Environment variables by name. An empty one counts as not set: scripts export what they do not know.
class EnvVars {
 public:
  explicit EnvVars(std::map<std::string, std::string> values) : values_(std::move(values)) {}
  /// Those of this process.
  [[nodiscard]] static EnvVars of_process();

  [[nodiscard]] bool has(const std::string& name) const { return !text(name).empty(); }
  /// "" where it is not set.
  [[nodiscard]] std::string text(const std::string& name) const;
  /// Throws UsageError naming the variable when it is set and no whole number from `low` to `high`.
  [[nodiscard]] std::optional<std::int64_t> number(const std::string& name, std::int64_t low,
                                                   std::int64_t high) const;

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace voca::engine
