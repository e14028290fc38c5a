#pragma once

#include <string>
#include <vector>

namespace voca::tools {

/// One option as --help shows it.
struct OptionLine {
  std::string group;
  std::string name;
  std::string argument;  ///< empty: a switch
  std::string help;
  std::string default_text;  ///< empty: none
  bool positional = false;
};

/// The options of a command, by group.
struct OptionPage {
  std::string command;
  std::string summary;
  std::vector<OptionLine> options;
};

/// The text of --help, wrapped to `columns`.
[[nodiscard]] std::string help_text(const OptionPage& page, int columns);
/// The command's section of docs/options.md.
[[nodiscard]] std::string markdown_text(const OptionPage& page);

}  // namespace voca::tools
