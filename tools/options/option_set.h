#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tools/options/option_row.h"
#include "tools/options/option_value.h"

namespace voca::tools {

/// Arguments after the command's name.
using CommandLine = std::span<const char* const>;

/// The options of one command: a table of rows, each bound to the variable that it sets, whose initial value
/// is the default. The variable's type is the option's: a number, std::string, std::filesystem::path, bool (a
/// switch), an enumeration with names (engine/base/names.h), a type with a text form (HasTextForm), or an
/// std::optional of these.
///
///   OptionSet set("synth", "writes a feature tree to try the program with");
///   set.begin_group("Data");
///   set.add(videos, {"videos", "N", "videos in all", at_least(1)});
///   if (!set.parse(command_line)) return 0;   // --help was printed
///   if (set.given(videos)) …                  // options are referred to by their variables
///
/// Names are spelled with underscores or dashes; values follow "=" or are the next word. Every command has
/// --help (--help=markdown: a section of docs/options.md) and --config FILE.json, whose values replace
/// defaults and are overridden by the command line. An option given twice with different values is refused.
class OptionSet {
 public:
  /// Where the value of an option comes from.
  enum class Origin : std::uint8_t { kDefault, kConfig, kCommandLine };

  OptionSet(std::string command, std::string summary);
  ~OptionSet();
  OptionSet(const OptionSet&) = delete;
  OptionSet& operator=(const OptionSet&) = delete;

  /// Sets the title in --help for the options added from here on.
  void begin_group(std::string title);
  /// Adds an option that sets `variable`, which must outlive the set, as must the texts of `row`. A switch is
  /// true without a value; true, yes, on, 1 and their opposites are accepted after "=" or as the next word.
  /// `names` replaces the names of an enumeration, or names the values of another type; they must outlive the
  /// set.
  template <typename T>
  void add(T& variable, const OptionRow& row,
           std::type_identity_t<std::span<const engine::Named<T>>> names = {}) {
    add_row(&variable, row, std::make_unique<TypedVariable<T>>(variable, names));
  }

  /// Assigns the given values. Returns false if --help was printed to stdout. Throws a one-line UsageError
  /// for an unknown option (naming the nearest one, or its replacement), a value that does not parse or is
  /// out of range (naming the option), a missing value, or two different values; DataError or IoError for the
  /// file of --config.
  [[nodiscard]] bool parse(CommandLine command_line);

  /// The name of an option.
  template <typename T>
  [[nodiscard]] std::string name(const T& variable) const {
    return std::string(row_of(&variable).name);
  }
  template <typename T>
  [[nodiscard]] Origin origin(const T& variable) const {
    return origin_of(row_of(&variable).name);
  }
  [[nodiscard]] Origin origin_of(std::string_view name) const;
  /// Whether the command line or --config sets the option.
  template <typename T>
  [[nodiscard]] bool given(const T& variable) const {
    return origin(variable) != Origin::kDefault;
  }
  /// Throws UsageError naming the option if its text is empty.
  template <typename T>
  void require(const T& variable) const {
    require_row(row_of(&variable));
  }

  /// An option, by its variable, and the text of a value.
  struct Setting {
    template <typename T>
    Setting(const T& of, std::string value) : variable(&of), text(std::move(value)) {}
    const void* variable;
    std::string text;
  };
  /// The parsed command line, with these options set to these values.
  [[nodiscard]] std::vector<std::string> words_with(const std::vector<Setting>& settings) const;

  /// Every option with its value, by name, as --config reads it.
  [[nodiscard]] nlohmann::ordered_json values() const;
  /// The subset of such values, also of another process or an earlier version, on which the numbers of a run
  /// depend.
  [[nodiscard]] nlohmann::ordered_json values_for_numbers(const nlohmann::ordered_json& values) const;
  /// Those of values() whose row says that earlier versions lacked the option.
  [[nodiscard]] nlohmann::ordered_json values_added_later() const;
  /// The options that must be equal on all ranks, "--lr" and its value.
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> values_of_all_ranks() const;
  /// Assigns the option's entry of such values; returns false and leaves the variable as it is if there is
  /// none or it does not parse.
  template <typename T>
  bool read_back(const nlohmann::ordered_json& values, const T& variable) {
    return read_back_row(values, row_of(&variable));
  }
  /// The file of --config; empty if it is not given.
  [[nodiscard]] const std::string& config() const;

 private:
  struct Option;
  struct Given;
  struct State;
  void add_row(const void* address, const OptionRow& row, std::unique_ptr<OptionVariable> variable);
  [[nodiscard]] const OptionRow& row_of(const void* address) const;
  void require_row(const OptionRow& row) const;
  bool read_back_row(const nlohmann::ordered_json& values, const OptionRow& row);
  void read_config(const std::filesystem::path& path);
  std::unique_ptr<State> state_;
};

}  // namespace voca::tools
