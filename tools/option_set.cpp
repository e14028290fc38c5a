#include "tools/option_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cxxopts.hpp>
#include <iostream>
#include <numeric>
#include <optional>
#include <variant>

#include "engine/atomic_file.h"
#include "engine/error.h"

namespace voca::tools {

using engine::DataError;
using engine::UsageError;
using nlohmann::ordered_json;

namespace {

constexpr std::size_t kHelpWidth = 110;
constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
    }
  }
  return row.back();
}

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

}  // namespace

struct OptionSet::Option {
  std::string name;
  std::string group;
  std::string argument;
  std::string help;
  std::variant<std::int64_t*, std::uint64_t*, double*, std::string*, bool*> value;
  std::optional<std::string> implicit{};  // what stands for a value that was left out
  bool positional = false;
  bool given = false;
  bool on_command_line = false;
  bool left_with_run = false;

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
  // Numbers and switches of JSON in the form of the command line.
  void assign(const ordered_json& json_value, const std::string& source) {
    const bool is_text = std::holds_alternative<std::string*>(value);
    if (json_value.is_structured() || json_value.is_null())
      throw UsageError("{}: is {}, expected a value", source, json_value.dump());
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
      if (text != "true" && text != "false") {
        throw UsageError("{}: is \"{}\"; it is a switch: leave the value out, or write true or false", source,
                         text);
      }
      *pointer = text == "true";
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

struct OptionSet::State {
  std::string command;
  std::string summary;
  std::string group = "General";
  std::string config;
  bool help = false;
  std::vector<Option> options;

  Option* find(std::string_view name) {
    const auto option =
        std::find_if(options.begin(), options.end(), [&](const Option& o) { return o.name == name; });
    return option == options.end() ? nullptr : &*option;
  }
  // "; did you mean --hidden?", or where help is
  [[nodiscard]] std::string suggestion(const std::string& name) const {
    const auto distance = [&](const Option& o) { return edit_distance(name, o.name); };
    const auto nearest =
        std::min_element(options.begin(), options.end(),
                         [&](const Option& a, const Option& b) { return distance(a) < distance(b); });
    if (nearest != options.end() && distance(*nearest) <= std::max<std::size_t>(2, name.size() / 3))
      return fmt::format("; did you mean --{}?", nearest->name);
    return fmt::format("; see voca-engine {} --help", command);
  }
  [[nodiscard]] std::string help_text() const;
};

std::string OptionSet::State::help_text() const {
  cxxopts::Options page("voca-engine " + command, summary + "\n");
  page.set_width(kHelpWidth);
  std::string usage = "[options]";
  std::vector<std::string> groups;
  for (const Option& option : options) {
    if (option.positional) {
      usage = option.argument + " " + usage;
      continue;
    }
    if (std::find(groups.begin(), groups.end(), option.group) == groups.end()) groups.push_back(option.group);
    auto value = cxxopts::value<std::string>();
    const bool flag = std::holds_alternative<bool*>(option.value);
    if (!flag && !option.text().empty()) value = value->default_value(option.text());
    if (flag) {
      page.add_options(option.group)(option.name, option.help);
    } else {
      page.add_options(option.group)(option.name, option.help, value, option.argument);
    }
  }
  page.custom_help(usage);
  return page.help(groups);
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

bool OptionSet::parse(CommandLine command_line) {
  begin_group("General");
  add("config", &state_->config, "FILE.json", "defaults for the options, by name");
  add_flag("help", &state_->help, "this text");

  // What the command line says, in order; applied after the file that it overrides.
  std::vector<std::pair<Option*, std::string>> given;
  for (std::size_t i = 0; i < command_line.size(); ++i) {
    const std::string_view word = command_line[i];
    if (word == "-h") {
      given.emplace_back(state_->find("help"), "true");
      continue;
    }
    if (!word.starts_with("--")) {
      const auto positional = std::find_if(state_->options.begin(), state_->options.end(),
                                           [](const Option& o) { return o.positional && !o.given; });
      if (positional == state_->options.end())
        throw UsageError("{}: \"{}\" is not an option; options begin with --", state_->command, word);
      positional->given = true;
      given.emplace_back(&*positional, std::string(word));
      continue;
    }
    const std::size_t equals = word.find('=');
    const std::string name = with_underscores(word.substr(2, equals == word.npos ? word.npos : equals - 2));
    Option* option = state_->find(name);
    if (option == nullptr || option->positional)
      throw UsageError("--{}: no such option of {}{}", name, state_->command, state_->suggestion(name));
    const bool flag = std::holds_alternative<bool*>(option->value);
    const bool has_next = i + 1 < command_line.size();
    const bool next_is_value = has_next && !std::string_view(command_line[i + 1]).starts_with("--");
    if (equals != word.npos) {
      given.emplace_back(option, std::string(word.substr(equals + 1)));
    } else if (flag || (option->implicit && !next_is_value)) {
      given.emplace_back(option, *option->implicit);
    } else if (!next_is_value) {
      throw UsageError("--{}: needs a value: {}", name, option->argument);
    } else {
      given.emplace_back(option, command_line[++i]);
    }
  }
  for (const auto& [option, text] : given) {
    if (option->name == "help") {
      std::cout << state_->help_text();
      return false;
    }
    if (option->name == "config") state_->config = text;
  }
  if (!state_->config.empty()) read_config(state_->config);
  for (const auto& [option, text] : given) {
    option->assign(text, option->positional ? option->name : "--" + option->name);
    option->on_command_line = true;
  }
  return true;
}

void OptionSet::read_config(const std::filesystem::path& path) {
  const std::string text = engine::read_text_file(path, kMaxConfigBytes);
  const ordered_json json = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw DataError("--config {}: is not a JSON object of options", path.string());
  // A run folder's config.json keeps the options beside what else it says.
  const bool of_run = json.contains("options") && json["options"].is_object();
  const bool of_other_command = of_run && json.value("command", ordered_json()) != state_->command;
  const ordered_json& options = of_run ? json["options"] : json;
  for (const auto& [key, value] : options.items()) {
    const std::string name = with_underscores(key);
    Option* option = state_->find(name);
    if (option == nullptr && of_other_command) continue;
    if (of_run && option != nullptr && option->left_with_run) continue;
    if (option == nullptr || option->positional || name == "config" || name == "help") {
      throw UsageError("--config {}: \"{}\" is no option of {}{}", path.string(), key, state_->command,
                       state_->suggestion(name));
    }
    option->assign(value, fmt::format("--config {}: \"{}\"", path.string(), key));
  }
}

bool OptionSet::given(std::string_view name) const {
  const Option* option = state_->find(name);
  VOCA_CHECK(option != nullptr);
  return option->given;
}

bool OptionSet::given_on_command_line(std::string_view name) const {
  const Option* option = state_->find(name);
  VOCA_CHECK(option != nullptr);
  return option->on_command_line;
}

void OptionSet::require(std::string_view name) const {
  const Option* option = state_->find(name);
  VOCA_CHECK(option != nullptr);
  if (!option->text().empty()) return;
  if (option->positional) throw UsageError("{}: needs {}: {}", state_->command, name, option->help);
  throw UsageError("{}: --{} {} is needed: {}", state_->command, name, option->argument, option->help);
}

ordered_json OptionSet::values() const {
  ordered_json json = ordered_json::object();
  for (const Option& option : state_->options)
    if (option.name != "config" && option.name != "help") json[option.name] = option.json();
  return json;
}

}  // namespace voca::tools
