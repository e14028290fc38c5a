#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

namespace voca::engine {

/// Environment variables by name. An empty variable counts as unset: scripts export variables whose value
/// they do not know.
class EnvVars {
 public:
  explicit EnvVars(std::map<std::string, std::string> values) : values_(std::move(values)) {}
  /// Environment of this process.
  [[nodiscard]] static EnvVars of_process();

  [[nodiscard]] const std::map<std::string, std::string>& values() const { return values_; }
  [[nodiscard]] bool has(const std::string& name) const { return !text(name).empty(); }
  /// Value of the variable; "" if it is unset.
  [[nodiscard]] std::string text(const std::string& name) const;
  /// Value as an integer. Throws UsageError naming the variable when it is set and not an integer from `low`
  /// to `high`.
  [[nodiscard]] std::optional<std::int64_t> number(const std::string& name, std::int64_t low,
                                                   std::int64_t high) const;

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace voca::engine
