#include "tools/options/option_set.h"

#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/path_status.h"
#include "engine/base/terminal.h"
#include "engine/base/text.h"
#include "tools/did_you_mean.h"
#include "tools/options/option_hints.h"
#include "tools/options/option_pages.h"
#include "tools/recorded_run.h"

namespace voca::tools {

using engine::DataError;
using engine::UsageError;
using nlohmann::ordered_json;

namespace {

constexpr std::size_t kMaxShown = 40;  // maximum length of a value in a message, in bytes

enum class HelpForm : std::uint8_t { kText, kMarkdown };
constexpr auto names_of(HelpForm /*tag*/) {
  return std::to_array<engine::Named<HelpForm>>(
      {{"text", HelpForm::kText}, {"markdown", HelpForm::kMarkdown}});
}

std::string with_underscores(std::string_view name) {
  std::string result(name);
  std::replace(result.begin(), result.end(), '-', '_');
  return result;
}

}  // namespace

/// A row and its variable.
struct OptionSet::Option {
  OptionRow row;
  std::string group;
  const void* address = nullptr;
  std::unique_ptr<OptionVariable> variable;
  Origin origin = Origin::kDefault;

  [[nodiscard]] bool is_switch() const { return std::holds_alternative<bool>(variable->plain(row)); }
  // Whether it takes several values separated by commas: "F.pt[,G.pt...]".
  [[nodiscard]] bool is_list() const { return row.argument.find("[,") != row.argument.npos; }
  [[nodiscard]] std::string argument() const {
    return row.argument.empty() && !row.implied ? variable->names() : std::string(row.argument);
  }
  [[nodiscard]] std::string source() const {
    return row.positional ? std::string(row.name) : fmt::format("--{}", row.name);
  }
  [[nodiscard]] std::optional<std::string_view> implied() const { return is_switch() ? "true" : row.implied; }
  [[nodiscard]] ordered_json json() const {
    return std::visit([](const auto& value) { return ordered_json(value); }, variable->plain(row));
  }
  [[nodiscard]] std::string text() const {
    const ordered_json current = json();
    return current.is_string() ? current.get<std::string>() : engine::json_text(current);
  }
  // `source` begins the message: "--lr", or the file and the key.
  void assign(const std::string& text, Origin from, const std::string& source) {
    variable->assign(text, row, source);
    origin = from;
  }
  // Assigns a JSON value; numbers and switches are parsed as on the command line.
  void assign(const ordered_json& value, const std::string& source) {
    if (value.is_structured() || value.is_null()) {
      throw UsageError("{}: is {}, expected a value", source,
                       engine::printable(engine::json_text(value), kMaxShown));
    }
    const bool is_text = std::holds_alternative<std::string>(variable->plain(row));
    if (!is_text && value == "") throw UsageError("{}: is empty, expected a value", source);
    assign(value.is_string() ? value.get<std::string>() : value.dump(), Origin::kConfig, source);
  }
};

/// One option as given on the command line.
struct OptionSet::Given {
  Option* option;
  std::string text;
  std::size_t begin;  // range of its words in State::words
  std::size_t end;
};

struct OptionSet::State {
  std::string command;
  std::string summary;
  std::string group = "General";
  std::string config;
  std::optional<HelpForm> help;
  std::vector<Option> options;
  std::vector<std::string> words;  // the command line
  std::vector<Given> given;        // in command-line order

  Option* find(std::string_view name) {
    const auto option =
        std::find_if(options.begin(), options.end(), [&](const Option& o) { return o.row.name == name; });
    return option == options.end() ? nullptr : &*option;
  }
  Option* help_option() { return find("help"); }
  // Whether it is an option of every command, which config.json does not record.
  [[nodiscard]] bool is_general(const Option& option) const {
    return option.address == &config || option.address == &help;
  }
  // "; did you mean --hidden?", the replacement of an option of other programs, or a pointer to help
  [[nodiscard]] std::string suggestion(const std::string& name);
  [[nodiscard]] OptionPage page() const;
  [[nodiscard]] UsageError stray_word(std::string_view word);
  void read(CommandLine command_line);
  void apply();
};

std::string OptionSet::State::suggestion(const std::string& name) {
  const auto has = [&](std::string_view other) { return find(other) != nullptr; };
  if (const std::string hint = option_hint(name, has); !hint.empty()) return "; " + hint;
  if (name.starts_with("no_")) {
    const Option* option = find(name.substr(3));
    if (option != nullptr && option->is_switch())
      return fmt::format("; write --{}=false, or leave it out", option->row.name);
  }
  std::vector<std::string_view> names;
  for (const Option& option : options)
    if (!option.row.positional) names.emplace_back(option.row.name);
  if (const std::string near = did_you_mean(name, names); !near.empty())
    return fmt::format("; did you mean --{}?", near);
  return fmt::format("; see voca-engine {} --help", command);
}

OptionPage OptionSet::State::page() const {
  OptionPage page{.command = command, .summary = summary, .options = {}};
  for (const Option& o : options) {
    std::string value = o.is_switch() ? (o.text() == "true" ? "on" : "off") : o.text();
    if (value.ends_with(".0")) value.resize(value.size() - 2);
    page.options.push_back(
        {.group = o.group,
         .name = std::string(o.row.name),
         .argument = o.argument(),
         .help = std::string(o.row.help),
         .default_text = std::string(o.row.shown_default.empty() ? value : o.row.shown_default),
         .positional = o.row.positional});
  }
  return page;
}

/// The error for a word that is neither an option nor the value of one.
UsageError OptionSet::State::stray_word(std::string_view word) {
  const std::string name = with_underscores(word.substr(0, word.find('=')));
  const Option* meant = word.starts_with('-') ? find(std::string_view(name).substr(1)) : nullptr;
  if (meant != nullptr && !meant->row.positional)
    return UsageError("{}: \"{}\" is not an option; did you mean --{}?", command, word, meant->row.name);
  const auto taken =
      std::find_if(given.begin(), given.end(), [](const Given& g) { return g.option->row.positional; });
  if (taken != given.end() && !word.starts_with('-')) {
    return UsageError(R"({}: "{}" is one {} too many, "{}" is given)", command, word, taken->option->row.name,
                      taken->text);
  }
  return UsageError("{}: \"{}\" is not an option; options begin with --", command, word);
}

/// Splits the command line into options and values.
void OptionSet::State::read(CommandLine command_line) {
  words.assign(command_line.begin(), command_line.end());
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word == "-h") {
      given.push_back({help_option(), std::string(*help_option()->row.implied), i, i + 1});
      continue;
    }
    if (!word.starts_with("--")) {
      const auto positional = std::find_if(options.begin(), options.end(), [](const Option& o) {
        return o.row.positional && o.origin == Origin::kDefault;
      });
      if (positional == options.end()) {
        if (i > 0 && !given.empty() && given.back().end == i && given.back().option->is_switch())
          throw not_of_a_switch(given.back().option->source(), word);
        throw stray_word(word);
      }
      positional->origin = Origin::kCommandLine;
      given.push_back({&*positional, std::string(word), i, i + 1});
      continue;
    }
    const std::size_t equals = word.find('=');
    const std::string name = with_underscores(word.substr(2, equals == word.npos ? word.npos : equals - 2));
    Option* option = find(name);
    if (option == nullptr || option->row.positional)
      throw UsageError("--{}: no such option of {}{}", name, command, suggestion(name));
    const std::string* next =
        i + 1 < words.size() && !words[i + 1].starts_with("--") ? &words[i + 1] : nullptr;
    if (option->is_switch() && next != nullptr && !parse_switch(*next)) next = nullptr;
    if (option == help_option()) next = nullptr;
    if (equals != word.npos) {
      given.push_back({option, std::string(word.substr(equals + 1)), i, i + 1});
    } else if (next != nullptr) {
      given.push_back({option, *next, i, i + 2});
      ++i;
    } else if (option->implied()) {
      given.push_back({option, std::string(*option->implied()), i, i + 1});
    } else {
      throw UsageError("--{}: needs a value: {}", name, option->argument());
    }
  }
}

/// Assigns the values of the command line. Throws UsageError for two different values of an option: one would
/// be lost silently.
void OptionSet::State::apply() {
  for (std::size_t i = 0; i < given.size(); ++i) {
    const Given& now = given[i];
    const auto before = std::find_if(given.begin(), given.begin() + static_cast<std::ptrdiff_t>(i),
                                     [&](const Given& earlier) { return earlier.option == now.option; });
    const ordered_json value = now.option->json();
    now.option->assign(now.text, Origin::kCommandLine, now.option->source());
    if (before == given.begin() + static_cast<std::ptrdiff_t>(i) || now.option->json() == value) continue;
    throw UsageError("{}: given twice ({}, {}); give one{}", now.option->source(), before->text, now.text,
                     now.option->is_list() ? fmt::format(", or both with a comma: --{} {},{}",
                                                         now.option->row.name, before->text, now.text)
                                           : "");
  }
}

OptionSet::OptionSet(std::string command, std::string summary) : state_(std::make_unique<State>()) {
  state_->command = std::move(command);
  state_->summary = std::move(summary);
}

OptionSet::~OptionSet() = default;

void OptionSet::begin_group(std::string title) {
  state_->group = std::move(title);
}

void OptionSet::add_row(const void* address, const OptionRow& row, std::unique_ptr<OptionVariable> variable) {
  VOCA_CHECK(state_->find(row.name) == nullptr);
  state_->options.push_back(
      {.row = row, .group = state_->group, .address = address, .variable = std::move(variable)});
}

const OptionRow& OptionSet::row_of(const void* address) const {
  const auto option = std::find_if(state_->options.begin(), state_->options.end(),
                                   [&](const Option& o) { return o.address == address; });
  VOCA_CHECK(option != state_->options.end());
  return option->row;
}

bool OptionSet::parse(CommandLine command_line) {
  begin_group("General");
  add(state_->config, {"config", "FILE.json", "defaults for the options, by name"});
  add(state_->help, {.name = "help", .help = "this text", .implied = "text"});
  state_->read(command_line);
  for (const Given& given : state_->given) {
    if (given.option != state_->help_option()) continue;
    const OptionPage page = state_->page();
    given.option->assign(given.text, Origin::kCommandLine, given.option->source());
    std::cout << (state_->help == HelpForm::kMarkdown
                      ? markdown_text(page)
                      : help_text(page, engine::terminal_columns(STDOUT_FILENO)));
    return false;
  }
  for (const Given& given : state_->given) {
    if (given.option->address == &state_->config)
      given.option->assign(given.text, Origin::kCommandLine, given.option->source());
  }
  if (!state_->config.empty()) read_config(state_->config);
  state_->apply();
  return true;
}

std::vector<std::string> OptionSet::words_with(const std::vector<Setting>& settings) const {
  std::vector<std::string> words = state_->words;
  // From the last to the first: the places of those before stay.
  for (auto given = state_->given.rbegin(); given != state_->given.rend(); ++given) {
    const bool replaced = std::any_of(settings.begin(), settings.end(), [&](const Setting& setting) {
      return setting.variable == given->option->address;
    });
    if (!replaced) continue;
    words.erase(words.begin() + static_cast<std::ptrdiff_t>(given->begin),
                words.begin() + static_cast<std::ptrdiff_t>(given->end));
  }
  for (const Setting& setting : settings)
    words.push_back(fmt::format("--{}={}", row_of(setting.variable).name, setting.text));
  return words;
}

void OptionSet::read_config(const std::filesystem::path& path) {
  if (engine::is_folder(path)) {
    throw UsageError("--config {}: is a folder; of a run folder name its file, {}", path.string(),
                     (path / "config.json").string());
  }
  const std::string text = engine::read_text_file(path, kMaxConfigBytes, /*pipes=*/true);
  const ordered_json json = engine::parse_json(text, fmt::format("--config {}", path.string()));
  if (!json.is_object()) throw DataError("--config {}: is not a JSON object of options", path.string());
  // A run folder's config.json has the options under "options", beside other entries.
  const bool of_run = json.contains("options") && json["options"].is_object();
  const bool of_other_command = of_run && json.value("command", ordered_json()) != state_->command;
  const ordered_json& options = of_run ? json["options"] : json;
  if (of_run) {
    // A run records its device and pos_weight a second time, as they came out.
    constexpr std::array<std::string_view, 2> kRecordedTwice{"device", "pos_weight"};
    for (const auto& [key, value] : json.items()) {
      const Option* option = state_->find(with_underscores(key));
      if (option == nullptr || state_->is_general(*option)) continue;
      if (std::find(kRecordedTwice.begin(), kRecordedTwice.end(), key) != kRecordedTwice.end()) continue;
      throw UsageError(
          R"(--config {}: "{}" is beside "options" and would have no effect; put it into "options")",
          path.string(), key);
    }
  }
  std::map<std::string, std::string> spelled;
  for (const auto& [key, value] : options.items()) {
    const std::string name = with_underscores(key);
    if (const auto [first, is_first] = spelled.emplace(name, key); !is_first) {
      throw UsageError(R"(--config {}: "{}" and "{}" are one option; give one of them)", path.string(),
                       first->second, key);
    }
    Option* option = state_->find(name);
    if (option == nullptr && of_other_command) continue;
    if (of_run && option != nullptr && option->row.left_with_run) continue;
    if (option == nullptr || option->row.positional || state_->is_general(*option)) {
      throw UsageError("--config {}: \"{}\" is not an option of {}{}", path.string(), engine::printable(key),
                       state_->command, state_->suggestion(name));
    }
    option->assign(value, fmt::format("--config {}: \"{}\"", path.string(), engine::printable(key)));
  }
}

OptionSet::Origin OptionSet::origin_of(std::string_view name) const {
  const Option* option = state_->find(name);
  VOCA_CHECK(option != nullptr);
  return option->origin;
}

void OptionSet::require_row(const OptionRow& row) const {
  const Option* option = state_->find(row.name);
  if (!option->text().empty()) return;
  if (row.positional) throw UsageError("{}: needs {}: {}", state_->command, row.name, row.help);
  throw UsageError("{}: --{} {} is needed: {}", state_->command, row.name, option->argument(), row.help);
}

ordered_json OptionSet::values() const {
  ordered_json json = ordered_json::object();
  for (const Option& option : state_->options)
    if (!state_->is_general(option)) json[std::string(option.row.name)] = option.json();
  return json;
}

ordered_json OptionSet::values_for_numbers(const ordered_json& values) const {
  ordered_json numeric = ordered_json::object();
  for (const auto& [name, value] : values.items()) {
    const Option* option = state_->find(name);
    if (option == nullptr || option->row.effect == Effect::kNumbers) numeric[name] = value;
  }
  return numeric;
}

ordered_json OptionSet::values_added_later() const {
  ordered_json added = ordered_json::object();
  for (const Option& option : state_->options)
    if (option.row.added_later) added[std::string(option.row.name)] = option.json();
  return added;
}

std::vector<std::pair<std::string, std::string>> OptionSet::values_of_all_ranks() const {
  std::vector<std::pair<std::string, std::string>> values;
  for (const Option& option : state_->options) {
    if (!state_->is_general(option) && option.row.effect != Effect::kRank)
      values.emplace_back(option.source(), option.text());
  }
  return values;
}

bool OptionSet::read_back_row(const ordered_json& values, const OptionRow& row) {
  const auto value = values.find(row.name);
  if (value == values.end()) return false;
  try {
    state_->find(row.name)->assign(*value, std::string(row.name));
    return true;
  } catch (const UsageError&) {
    return false;
  }
}

const std::string& OptionSet::config() const {
  return state_->config;
}

}  // namespace voca::tools
