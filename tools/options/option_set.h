#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace voca::tools {

/// What stands behind the command's name on the command line.
using CommandLine = std::span<const char* const>;

/// The options of one command, bound to variables whose values are the defaults.
///
///   OptionSet set("synth", "writes a feature tree to try the program with");
///   set.begin_group("Data");
///   set.add("videos", &videos, "N", "videos in all");
///   if (!set.parse(command_line)) return 0;   // --help was printed
///
/// Names are written with underscores or dashes, values behind "=" or as the next word. Everyone has --help
/// (--help=markdown: a section of docs/options.md) and --config FILE.json, whose values stand in for defaults
/// and which the command line overrides. An option given twice with two values is refused.
class OptionSet {
 public:
  OptionSet(std::string command, std::string summary);
  ~OptionSet();
  OptionSet(const OptionSet&) = delete;
  OptionSet& operator=(const OptionSet&) = delete;

  /// A title in --help for the options added from here on.
  void begin_group(std::string title);
  /// `name` with underscores; `argument` names the value in --help, with its unit.
  void add(const std::string& name, std::int64_t* value, const std::string& argument,
           const std::string& help);
  void add(const std::string& name, std::uint64_t* value, const std::string& argument,
           const std::string& help);
  void add(const std::string& name, double* value, const std::string& argument, const std::string& help);
  void add(const std::string& name, std::string* value, const std::string& argument, const std::string& help);
  /// Without a value true; true, yes, on, 1 and their opposites behind "=" or as the next word work as well.
  void add_flag(const std::string& name, bool* value, const std::string& help);
  /// A text whose value may be left out: `implicit` then.
  void add_optional(const std::string& name, std::string* value, const std::string& implicit,
                    const std::string& argument, const std::string& help);
  /// What --help says instead of a default that depends on the machine.
  void show_default(std::string_view name, std::string text);
  /// The one argument without a name, for commands that take one.
  void add_positional(const std::string& name, std::string* value, const std::string& help);

  /// Options that --config does not take from a run folder's config.json: they say what was to be done with
  /// the files of that run, not what the run is.
  void leave_with_run(std::initializer_list<std::string_view> names);

  /// Assigns what was given. False: --help was printed to stdout. Throws UsageError in one line: an unknown
  /// option (naming the nearest one, or what replaces it), a value that does not parse (naming the option), a
  /// missing value, two different values;
  /// DataError or IoError for the file of --config.
  [[nodiscard]] bool parse(CommandLine command_line);

  /// Whether the command line or --config gave it.
  [[nodiscard]] bool given(std::string_view name) const;
  /// Whether it stood on the command line itself, not in --config alone.
  [[nodiscard]] bool given_on_command_line(std::string_view name) const;
  /// Throws UsageError naming the option when its text is empty.
  void require(std::string_view name) const;
  /// The command line that was parsed, with these options (by name) set to these values.
  [[nodiscard]] std::vector<std::string> words_with(
      const std::vector<std::pair<std::string, std::string>>& values) const;
  /// Every option as used, by its name: what --config reads.
  [[nodiscard]] nlohmann::ordered_json values() const;

 private:
  struct Option;
  struct Given;
  struct State;
  void add_option(Option option);
  void read_config(const std::filesystem::path& path);
  std::unique_ptr<State> state_;
};

/// Whether a command line that is another process's to read turns on a switch, in any of the ways to write
/// it.
[[nodiscard]] bool is_switched_on(CommandLine command_line, std::string_view name);

}  // namespace voca::tools
