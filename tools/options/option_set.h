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

namespace voca::tools {

/// Arguments after the command's name.
using CommandLine = std::span<const char* const>;

/// The options of one command, bound to variables whose initial values are the defaults.
///
///   OptionSet set("synth", "writes a feature tree to try the program with");
///   set.begin_group("Data");
///   set.add("videos", &videos, "N", "videos in all");
///   if (!set.parse(command_line)) return 0;   // --help was printed
///
/// Names are spelled with underscores or dashes; values follow "=" or are the next word. Every command has
/// --help (--help=markdown: a section of docs/options.md) and --config FILE.json, whose values replace
/// defaults and are overridden by the command line. An option given twice with different values is refused.
class OptionSet {
 public:
  OptionSet(std::string command, std::string summary);
  ~OptionSet();
  OptionSet(const OptionSet&) = delete;
  OptionSet& operator=(const OptionSet&) = delete;

  /// Sets the title in --help for the options added from here on.
  void begin_group(std::string title);
  /// Adds an option. `name` is spelled with underscores; `argument` names the value in --help, with its unit.
  void add(const std::string& name, std::int64_t* value, const std::string& argument,
           const std::string& help);
  void add(const std::string& name, std::uint64_t* value, const std::string& argument,
           const std::string& help);
  void add(const std::string& name, double* value, const std::string& argument, const std::string& help);
  void add(const std::string& name, std::string* value, const std::string& argument, const std::string& help);
  /// Adds a switch: true without a value; true, yes, on, 1 and their opposites are accepted after "=" or as
  /// the next word.
  void add_flag(const std::string& name, bool* value, const std::string& help);
  /// Adds a text option whose value may be omitted; it is `implicit` then.
  void add_optional(const std::string& name, std::string* value, const std::string& implicit,
                    const std::string& argument, const std::string& help);
  /// Sets what --help shows instead of a default that depends on the machine.
  void show_default(std::string_view name, std::string text);
  /// Adds the positional argument, for commands that take one.
  void add_positional(const std::string& name, std::string* value, const std::string& help);

  /// Names options that --config ignores in the config.json of a run folder: they say what to do with the
  /// files of that run, not what the run is.
  void leave_with_run(std::initializer_list<std::string_view> names);

  /// Assigns the given values. Returns false if --help was printed to stdout. Throws a one-line UsageError
  /// for an unknown option (naming the nearest one, or its replacement), a value that does not parse (naming
  /// the option), a missing value, or two different values; DataError or IoError for the file of --config.
  [[nodiscard]] bool parse(CommandLine command_line);

  /// Whether the command line or --config sets the option.
  [[nodiscard]] bool given(std::string_view name) const;
  /// Whether the command line itself sets the option, not only --config.
  [[nodiscard]] bool given_on_command_line(std::string_view name) const;
  /// Throws UsageError naming the option if its text is empty.
  void require(std::string_view name) const;
  /// The parsed command line, with these options (by name) set to these values.
  [[nodiscard]] std::vector<std::string> words_with(
      const std::vector<std::pair<std::string, std::string>>& values) const;
  /// Every option with its value, by name, as --config reads it.
  [[nodiscard]] nlohmann::ordered_json values() const;

 private:
  struct Option;
  struct Given;
  struct State;
  void add_option(Option option);
  void read_config(const std::filesystem::path& path);
  std::unique_ptr<State> state_;
};

/// Whether the command line of another process turns on a switch, in any accepted spelling.
[[nodiscard]] bool is_switched_on(CommandLine command_line, std::string_view name);

}  // namespace voca::tools
