#include "tools/options/option_set.h"

#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <ranges>
#include <variant>

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

std::string with_underscores(std::string_view name) {
  std::string result(name);
  std::replace(result.begin(), result.end(), '-', '_');
  return result;
}

template <typename T>
std::optional<T> parse_number(const std::string& text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || rest != end) return std::nullopt;
  if constexpr (std::is_floating_point_v<T>)
    if (!std::isfinite(value)) return std::nullopt;
  return value;
}

/// Parses the value of a switch: true, yes, on, 1 and their opposites.
std::optional<bool> parse_switch(std::string_view text) {
  std::string word(text);
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  for (const char* on : {"true", "yes", "on", "1"})
    if (word == on) return true;
  for (const char* off : {"false", "no", "off", "0"})
    if (word == off) return false;
  return std::nullopt;
}

UsageError not_of_a_switch(std::string_view source, std::string_view text) {
  return UsageError("{}: is \"{}\"; it is a switch: leave the value out, or write true or false", source,
                    text);
}

}  // namespace

struct OptionSet::Option {
  std::string name;
  std::string group;
  std::string argument;
  std::string help;
  std::variant<std::int64_t*, std::uint64_t*, double*, std::string*, bool*> value;
  std::optional<std::string> implicit{};  // value if none is given
  bool positional = false;
  std::string shown_default{};  // shown in --help instead of the value
  bool given = false;
  bool left_with_run = false;

  [[nodiscard]] bool is_switch() const { return std::holds_alternative<bool*>(value); }
  // Whether it takes several values separated by commas: "F.pt[,G.pt...]".
  [[nodiscard]] bool is_list() const { return argument.find("[,") != argument.npos; }
  [[nodiscard]] std::string source() const { return positional ? name : "--" + name; }
  [[nodiscard]] ordered_json json() const {
    return std::visit([](const auto* pointer) { return ordered_json(*pointer); }, value);
  }
  [[nodiscard]] std::string text() const {
    const ordered_json current = json();
    return current.is_string() ? current.get<std::string>() : current.dump();
  }
  // `source` begins the message: "--lr", or the file and the key.
  void assign(const std::string& text, const std::string& source) {
    std::visit([&](auto* pointer) { assign_to(pointer, text, source); }, value);
    given = true;
  }
  // Assigns a JSON value; numbers and switches are parsed as on the command line.
  void assign(const ordered_json& json_value, const std::string& source) {
    const bool is_text = std::holds_alternative<std::string*>(value);
    if (json_value.is_structured() || json_value.is_null()) {
      throw UsageError("{}: is {}, expected a value", source,
                       engine::printable(engine::json_text(json_value), kMaxShown));
    }
    if (json_value.is_string() && !is_text && json_value.get_ref<const std::string&>().empty())
      throw UsageError("{}: is empty, expected a value", source);
    assign(json_value.is_string() ? json_value.get<std::string>() : json_value.dump(), source);
  }

 private:
  template <typename T>
  static void assign_to(T* pointer, const std::string& text, const std::string& source) {
    if constexpr (std::is_same_v<T, std::string>) {
      *pointer = text;
    } else if constexpr (std::is_same_v<T, bool>) {
      const std::optional<bool> on = parse_switch(text);
      if (!on) throw not_of_a_switch(source, text);
      *pointer = *on;
    } else {
      const std::optional<T> number = parse_number<T>(text);
      if (!number) {
        throw UsageError("{}: is \"{}\", expected {}", source, text,
                         std::is_floating_point_v<T> ? "a number"
                         : std::is_signed_v<T>       ? "a whole number"
                                                     : "a whole number that is not negative");
      }
      *pointer = *number;
    }
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
  std::string help;
  std::vector<Option> options;
  std::vector<std::string> words;  // the command line
  std::vector<Given> given;        // in command-line order

  Option* find(std::string_view name) {
    const auto option =
        std::find_if(options.begin(), options.end(), [&](const Option& o) { return o.name == name; });
    return option == options.end() ? nullptr : &*option;
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
      return fmt::format("; write --{}=false, or leave it out", option->name);
  }
  std::vector<std::string_view> names;
  for (const Option& option : options)
    if (!option.positional) names.emplace_back(option.name);
  if (const std::string near = did_you_mean(name, names); !near.empty())
    return fmt::format("; did you mean --{}?", near);
  return fmt::format("; see voca-engine {} --help", command);
}

OptionPage OptionSet::State::page() const {
  OptionPage page{.command = command, .summary = summary, .options = {}};
  for (const Option& o : options) {
    std::string value = o.is_switch() ? (o.text() == "true" ? "on" : "off") : o.text();
    if (value.ends_with(".0")) value.resize(value.size() - 2);
    page.options.push_back({.group = o.group,
                            .name = o.name,
                            .argument = o.is_switch() ? "" : o.argument,
                            .help = o.help,
                            .default_text = o.shown_default.empty() ? value : o.shown_default,
                            .positional = o.positional});
  }
  return page;
}

/// The error for a word that is neither an option nor the value of one.
UsageError OptionSet::State::stray_word(std::string_view word) {
  const std::string name = with_underscores(word.substr(0, word.find('=')));
  const Option* meant = word.starts_with('-') ? find(std::string_view(name).substr(1)) : nullptr;
  if (meant != nullptr && !meant->positional)
    return UsageError("{}: \"{}\" is not an option; did you mean --{}?", command, word, meant->name);
  const auto taken =
      std::find_if(given.begin(), given.end(), [](const Given& g) { return g.option->positional; });
  if (taken != given.end() && !word.starts_with('-')) {
    return UsageError(R"({}: "{}" is one {} too many, "{}" is given)", command, word, taken->option->name,
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
      given.push_back({find("help"), "text", i, i + 1});
      continue;
    }
    if (!word.starts_with("--")) {
      const auto positional = std::find_if(options.begin(), options.end(),
                                           [](const Option& o) { return o.positional && !o.given; });
      if (positional == options.end()) {
        if (i > 0 && !given.empty() && given.back().end == i && given.back().option->is_switch())
          throw not_of_a_switch("--" + given.back().option->name, word);
        throw stray_word(word);
      }
      positional->given = true;
      given.push_back({&*positional, std::string(word), i, i + 1});
      continue;
    }
    const std::size_t equals = word.find('=');
    const std::string name = with_underscores(word.substr(2, equals == word.npos ? word.npos : equals - 2));
    Option* option = find(name);
    if (option == nullptr || option->positional)
      throw UsageError("--{}: no such option of {}{}", name, command, suggestion(name));
    const std::string* next =
        i + 1 < words.size() && !words[i + 1].starts_with("--") ? &words[i + 1] : nullptr;
    if (option->is_switch() && next != nullptr && !parse_switch(*next)) next = nullptr;
    if (name == "help") next = nullptr;
    if (equals != word.npos) {
      given.push_back({option, std::string(word.substr(equals + 1)), i, i + 1});
    } else if (next != nullptr) {
      given.push_back({option, *next, i, i + 2});
      ++i;
    } else if (option->implicit) {
      given.push_back({option, *option->implicit, i, i + 1});
    } else {
      throw UsageError("--{}: needs a value: {}", name, option->argument);
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
    now.option->assign(now.text, now.option->source());
    if (before == given.begin() + static_cast<std::ptrdiff_t>(i) || now.option->json() == value) continue;
    throw UsageError("{}: given twice ({}, {}); give one{}", now.option->source(), before->text, now.text,
                     now.option->is_list() ? fmt::format(", or both with a comma: --{} {},{}",
                                                         now.option->name, before->text, now.text)
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

void OptionSet::add_option(Option option) {
  VOCA_CHECK(state_->find(option.name) == nullptr);
  option.group = state_->group;
  state_->options.push_back(std::move(option));
}

void OptionSet::add(const std::string& name, std::int64_t* value, const std::string& argument,
                    const std::string& help) {
  add_option({.name = name, .group = {}, .argument = argument, .help = help, .value = value});
}

void OptionSet::add(const std::string& name, std::uint64_t* value, const std::string& argument,
                    const std::string& help) {
  add_option({.name = name, .group = {}, .argument = argument, .help = help, .value = value});
}

void OptionSet::add(const std::string& name, double* value, const std::string& argument,
                    const std::string& help) {
  add_option({.name = name, .group = {}, .argument = argument, .help = help, .value = value});
}

void OptionSet::add(const std::string& name, std::string* value, const std::string& argument,
                    const std::string& help) {
  add_option({.name = name, .group = {}, .argument = argument, .help = help, .value = value});
}

void OptionSet::add_flag(const std::string& name, bool* value, const std::string& help) {
  add_option({.name = name, .group = {}, .argument = {}, .help = help, .value = value, .implicit = "true"});
}

void OptionSet::add_optional(const std::string& name, std::string* value, const std::string& implicit,
                             const std::string& argument, const std::string& help) {
  add_option(
      {.name = name, .group = {}, .argument = argument, .help = help, .value = value, .implicit = implicit});
}

void OptionSet::add_positional(const std::string& name, std::string* value, const std::string& help) {
  add_option({.name = name, .group = {}, .argument = name, .help = help, .value = value, .positional = true});
}

void OptionSet::leave_with_run(std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    Option* option = state_->find(name);
    VOCA_CHECK(option != nullptr);
    option->left_with_run = true;
  }
}

void OptionSet::show_default(std::string_view name, std::string text) {
  Option* option = state_->find(name);
  VOCA_CHECK(option != nullptr);
  option->shown_default = std::move(text);
}

bool OptionSet::parse(CommandLine command_line) {
  begin_group("General");
  add("config", &state_->config, "FILE.json", "defaults for the options, by name");
  add_option({.name = "help",
              .group = {},
              .argument = {},
              .help = "this text",
              .value = &state_->help,
              .implicit = "text"});
  state_->read(command_line);
  for (const Given& given : state_->given) {
    if (given.option->name != "help") continue;
    if (given.text != "text" && given.text != "markdown")
      throw UsageError("--help: \"{}\" is not one of text, markdown", given.text);
    std::cout << (given.text == "text" ? help_text(state_->page(), engine::terminal_columns(STDOUT_FILENO))
                                       : markdown_text(state_->page()));
    return false;
  }
  for (const Given& given : state_->given)
    if (given.option->name == "config") given.option->assign(given.text, "--config");
  if (!state_->config.empty()) read_config(state_->config);
  state_->apply();
  return true;
}

std::vector<std::string> OptionSet::words_with(
    const std::vector<std::pair<std::string, std::string>>& values) const {
  std::vector<std::string> words = state_->words;
  for (const Given& given : std::views::reverse(state_->given)) {
    const bool replaced = std::any_of(values.begin(), values.end(),
                                      [&](const auto& value) { return value.first == given.option->name; });
    if (!replaced) continue;
    words.erase(words.begin() + static_cast<std::ptrdiff_t>(given.begin),
                words.begin() + static_cast<std::ptrdiff_t>(given.end));
  }
  for (const auto& [name, text] : values) words.push_back(fmt::format("--{}={}", name, text));
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
  std::map<std::string, std::string> spelled;
  for (const auto& [key, value] : options.items()) {
    const std::string name = with_underscores(key);
    if (const auto [first, is_first] = spelled.emplace(name, key); !is_first) {
      throw UsageError(R"(--config {}: "{}" and "{}" are one option; give one of them)", path.string(),
                       first->second, key);
    }
    Option* option = state_->find(name);
    if (option == nullptr && of_other_command) continue;
    if (of_run && option != nullptr && option->left_with_run) continue;
    if (option == nullptr || option->positional || name == "config" || name == "help") {
      throw UsageError("--config {}: \"{}\" is not an option of {}{}", path.string(), engine::printable(key),
                       state_->command, state_->suggestion(name));
    }
    option->assign(value, fmt::format("--config {}: \"{}\"", path.string(), engine::printable(key)));
  }
}

bool OptionSet::given(std::string_view name) const {
  const Option* option = state_->find(name);
  VOCA_CHECK(option != nullptr);
  return option->given;
}

bool OptionSet::given_on_command_line(std::string_view name) const {
  return std::any_of(state_->given.begin(), state_->given.end(),
                     [&](const Given& given) { return given.option->name == name; });
}

void OptionSet::require(std::string_view name) const {
  const Option* option = state_->find(name);
  VOCA_CHECK(option != nullptr);
  if (!option->text().empty()) return;
  if (option->positional) throw UsageError("{}: needs {}: {}", state_->command, name, option->help);
  throw UsageError("{}: --{} {} is needed: {}", state_->command, name, option->argument, option->help);
}

bool is_switched_on(CommandLine command_line, std::string_view name) {
  bool on = false;
  for (std::size_t i = 0; i < command_line.size(); ++i) {
    const std::string_view word = command_line[i];
    const std::size_t equals = std::min(word.find('='), word.size());
    if (!word.starts_with("--") ||
        with_underscores(word.substr(2, std::max<std::size_t>(equals, 2) - 2)) != name)
      continue;
    if (equals < word.size()) {
      on = parse_switch(word.substr(equals + 1)).value_or(false);
    } else {
      on = i + 1 == command_line.size() || parse_switch(command_line[i + 1]).value_or(true);
    }
  }
  return on;
}

ordered_json OptionSet::values() const {
  ordered_json json = ordered_json::object();
  for (const Option& option : state_->options)
    if (option.name != "config" && option.name != "help") json[option.name] = option.json();
  return json;
}

}  // namespace voca::tools
