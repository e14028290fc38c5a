#include "tools/options/option_pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "engine/base/terminal.h"

namespace voca::tools {
namespace {

constexpr std::size_t kMargin = 2;
constexpr std::size_t kGap = 2;
/// Options wider than this have their text on the next line.
constexpr std::size_t kMaxColumn = 28;
/// If less than this remains beside the options, every text goes on the next line.
constexpr int kMinTextColumns = 40;
constexpr std::size_t kNarrowIndent = 6;

std::string spelled(const OptionLine& option) {
  if (option.positional) return option.name;
  return "--" + option.name + (option.argument.empty() ? "" : " " + option.argument);
}

std::string usage(const OptionPage& page) {
  std::string words = "voca-engine " + page.command;
  for (const OptionLine& option : page.options)
    if (option.positional) words += " " + option.name;
  return words + " [options]";
}

/// Column in which texts begin; 0 if they go below their options.
std::size_t text_column(const OptionPage& page, int columns) {
  std::size_t longest = 0;
  for (const OptionLine& option : page.options) {
    const std::size_t length = spelled(option).size();
    if (length <= kMaxColumn) longest = std::max(longest, length);
  }
  const std::size_t column = kMargin + longest + kGap;
  return columns - static_cast<int>(column) >= kMinTextColumns ? column : 0;
}

std::string option_text(const OptionLine& option, std::size_t column, int columns) {
  const std::string name = std::string(kMargin, ' ') + spelled(option);
  const bool is_usual = option.default_text.empty() || option.default_text == "off";
  const std::string help =
      option.help +
      (is_usual ? "" : fmt::format(" (default:{}{})", engine::kFixedSpace, option.default_text));
  if (column == 0 || name.size() + kGap > column) {
    const std::size_t indent = column == 0 ? kNarrowIndent : column;
    return engine::wrapped(name, columns, kNarrowIndent + kMargin) + '\n' +
           engine::wrapped(std::string(indent, ' ') + help, columns, indent) + '\n';
  }
  return engine::wrapped(fmt::format("{:<{}}{}", name, column, help), columns, column) + '\n';
}

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '|' || c == '<' || c == '*') result += '\\';
    result += c;
  }
  return result;
}

/// Formats inline code for a table cell. Only the bar is escaped, because it would end the cell.
std::string code(std::string_view text) {
  std::string result = "`";
  for (const char c : text) {
    if (c == '|') result += '\\';
    result += c;
  }
  return result + '`';
}

}  // namespace

std::string help_text(const OptionPage& page, int columns) {
  std::string text = engine::wrapped(usage(page), columns, kNarrowIndent) + "\n\n" +
                     engine::wrapped(page.summary, columns, 0) + '\n';
  const std::size_t column = text_column(page, columns);
  std::string_view group;
  for (const OptionLine& option : page.options) {
    if (option.group != group) text += '\n' + engine::wrapped(option.group, columns, 0) + '\n';
    group = option.group;
    text += option_text(option, column, columns);
  }
  return text;
}

std::string markdown_text(const OptionPage& page) {
  std::string text = fmt::format("## {}\n\n{}\n\n`{}`\n", page.command, escaped(page.summary), usage(page));
  std::string_view group;
  for (const OptionLine& option : page.options) {
    if (option.group != group)
      text += fmt::format("\n### {}\n\n| option | default | |\n|---|---|---|\n", option.group);
    group = option.group;
    text += fmt::format("| {} | {} | {} |\n", code(spelled(option)),
                        option.default_text.empty() ? "" : code(option.default_text), escaped(option.help));
  }
  return text;
}

}  // namespace voca::tools
