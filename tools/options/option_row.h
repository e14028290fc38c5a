#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace voca::tools {

/// What an option changes, and so where it must be equal.
enum class Effect : std::uint8_t {
  kNumbers,  ///< the numbers of a run: equal on all ranks, and when the run is resumed
  kJob,      ///< how a run goes or ends, but none of its numbers: equal on all ranks
  kRank,     ///< one rank only: paths, speed, output
};

/// The numbers that an option takes.
struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_excluded = false;
  bool max_excluded = false;
  std::string_view unit{};  ///< follows the numbers in messages: " seconds"

  [[nodiscard]] bool holds(double value) const;
  /// "at least 1", "from 0 to 4096 GiB", "at least 0 and below 1".
  [[nodiscard]] std::string text() const;
};

[[nodiscard]] constexpr Range at_least(double min, std::string_view unit = {}) {
  return {.min = min, .unit = unit};
}
[[nodiscard]] constexpr Range above(double min, double max = std::numeric_limits<double>::infinity()) {
  return {.min = min, .max = max, .min_excluded = true};
}
[[nodiscard]] constexpr Range between(double min, double max, std::string_view unit = {}) {
  return {.min = min, .max = max, .unit = unit};
}
inline constexpr Range kAny{};
/// A share that 1 is not part of, such as a probability of dropout.
inline constexpr Range kBelowOne{.min = 0, .max = 1, .max_excluded = true};

/// What there is to say of one option beside the variable that it sets: its type and its default. Everything
/// else follows from the row: parsing, --help, docs/options.md, config.json, --config, what a resumed run is
/// compared by, and what ranks must agree on.
struct OptionRow {
  std::string_view name;  ///< with underscores; a positional argument in capitals
  /// Names the value in --help, with its unit. Empty for switches and enumerations, whose names are listed.
  std::string_view argument{};
  std::string_view help;
  Range range{};
  Effect effect = Effect::kNumbers;
  /// Says what to do with the files of a run, not what the run is: --config ignores it in a run's
  /// config.json.
  bool left_with_run = false;
  /// Earlier versions lacked the option and computed what its default does: records without it have the
  /// default.
  bool added_later = false;
  bool positional = false;
  std::string_view none{};                    ///< text of an std::optional without a value
  std::optional<std::string_view> implied{};  ///< value if the option is given without one
  std::string_view shown_default{};           ///< shown in --help instead of the default
};

/// The row of the same option with another effect.
[[nodiscard]] constexpr OptionRow with_effect(OptionRow row, Effect effect) {
  row.effect = effect;
  return row;
}

}  // namespace voca::tools
