#pragma once

#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "engine/base/error.h"
#include "engine/base/names.h"
#include "engine/base/text.h"
#include "tools/options/option_row.h"

// Conversion between the text of an option and the typed variable that it sets.

namespace voca::tools {

/// A value as config.json holds it.
using PlainValue = std::variant<bool, std::int64_t, std::uint64_t, double, std::string>;

/// A type with a text form of its own: `parse` reads what `text` writes; `kForm` says what is expected.
template <typename T>
concept HasTextForm = requires(const T& value, std::string_view text) {
  { T::parse(text) } -> std::same_as<std::optional<T>>;
  { value.text() } -> std::same_as<std::string>;
  { T::kForm } -> std::convertible_to<std::string_view>;
};

template <typename T>
inline constexpr bool kIsOptional = false;
template <typename T>
inline constexpr bool kIsOptional<std::optional<T>> = true;

/// Types whose values can have names.
template <typename T>
inline constexpr bool kIsNameable =
    std::is_enum_v<T> || std::is_same_v<T, bool> || std::is_same_v<T, std::string>;

/// Value of a switch: true, yes, on, 1 and their opposites; nullopt for other text.
[[nodiscard]] std::optional<bool> parse_switch(std::string_view text);
/// The error for the text of a switch that is none of these.
[[nodiscard]] engine::UsageError not_of_a_switch(std::string_view source, std::string_view text);

template <typename T>
[[nodiscard]] std::optional<T> parse_number(std::string_view text) {
  const std::optional<T> value = engine::number_in<T>(text);
  if constexpr (std::is_floating_point_v<T>)
    if (value && !std::isfinite(*value)) return std::nullopt;
  return value;
}

/// Whether `text` is a number that T cannot hold.
template <typename T>
[[nodiscard]] bool is_beyond(std::string_view text) {
  T value{};
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc::result_out_of_range && rest == text.data() + text.size();
}

/// The names that T's values are written by; empty if it has none. `own` replaces those of its enumeration.
template <typename T>
[[nodiscard]] std::span<const engine::Named<T>> names_for(std::span<const engine::Named<T>> own) {
  if constexpr (engine::HasNames<T>)
    if (own.empty()) return engine::kNames<T>;
  return own;
}

/// Parses the text of an option. Throws UsageError that begins with `source`, the option or a key of a file.
template <typename T>
[[nodiscard]] T parse_value(const std::string& text, const OptionRow& row, std::string_view source,
                            std::span<const engine::Named<T>> own_names) {
  const auto expected = [&](std::string_view form) {
    return engine::UsageError("{}: is \"{}\", expected {}{}", source, text, form,
                              row.none.empty() ? "" : fmt::format(" or {}", row.none));
  };
  if constexpr (kIsNameable<T>) {
    if (const auto names = names_for<T>(own_names); !names.empty()) {
      if (const std::optional<T> value = engine::value_named(names, text)) return *value;
      if constexpr (std::is_same_v<T, bool>)
        if (const std::optional<bool> on = parse_switch(text)) return *on;
      throw engine::UsageError("{}: \"{}\" is not one of {}", source, text,
                               engine::list_of_names(names, ", "));
    }
  }
  if constexpr (kIsOptional<T>) {
    if (text == row.none) return std::nullopt;
    return parse_value<typename T::value_type>(text, row, source, {});
  } else if constexpr (std::is_same_v<T, bool>) {
    const std::optional<bool> on = parse_switch(text);
    if (!on) throw not_of_a_switch(source, text);
    return *on;
  } else if constexpr (std::is_arithmetic_v<T>) {
    const std::optional<T> number = parse_number<T>(text);
    if (!number && is_beyond<T>(text)) {
      const std::string range = row.range.text();
      throw engine::UsageError("{}: is {}, beyond the numbers that it can hold{}{}", source, text,
                               range.empty() ? "" : "; must be ", range);
    }
    if (!number) {
      throw expected(std::is_floating_point_v<T> ? "a number"
                     : std::is_signed_v<T>       ? "a whole number"
                                                 : "a whole number that is not negative");
    }
    if (!row.range.holds(static_cast<double>(*number)))
      throw engine::UsageError("{}: is {}, must be {}", source, *number, row.range.text());
    return *number;
  } else if constexpr (HasTextForm<T>) {
    const std::optional<T> value = T::parse(text);
    if (!value) throw expected(T::kForm);
    return *value;
  } else if constexpr (std::is_enum_v<T>) {
    throw engine::InternalError("{}: is an enumeration without names", source);
  } else {
    return T(text);  // a string or a path
  }
}

/// The value as config.json holds it. An std::optional is a text, whatever it holds.
template <typename T>
[[nodiscard]] PlainValue plain_value(const T& value, const OptionRow& row,
                                     std::span<const engine::Named<T>> own_names) {
  if constexpr (kIsNameable<T>) {
    for (const engine::Named<T>& one : names_for<T>(own_names))
      if (one.value == value) return std::string(one.name);
  }
  if constexpr (kIsOptional<T>) {
    if (!value) return std::string(row.none);
    return std::visit([](const auto& held) -> PlainValue { return fmt::format("{}", held); },
                      plain_value<typename T::value_type>(*value, row, {}));
  } else if constexpr (HasTextForm<T>) {
    return value.text();
  } else if constexpr (std::is_same_v<T, int>) {
    return std::int64_t{value};
  } else if constexpr (std::is_same_v<T, std::filesystem::path>) {
    return value.string();
  } else if constexpr (!std::is_enum_v<T>) {
    return value;
  } else {
    throw engine::InternalError("--{}: has a value without a name", row.name);
  }
}

/// "epoch|step" for values with names; else empty.
template <typename T>
[[nodiscard]] std::string list_of_names(std::span<const engine::Named<T>> own_names) {
  if constexpr (kIsNameable<T>) {
    return engine::list_of_names(names_for<T>(own_names), "|");
  } else {
    return {};
  }
}

/// The variable that an option sets.
class OptionVariable {
 public:
  OptionVariable() = default;
  OptionVariable(const OptionVariable&) = delete;
  OptionVariable& operator=(const OptionVariable&) = delete;
  virtual ~OptionVariable() = default;

  virtual void assign(const std::string& text, const OptionRow& row, std::string_view source) = 0;
  [[nodiscard]] virtual PlainValue plain(const OptionRow& row) const = 0;
  /// "epoch|step" for values with names; else empty.
  [[nodiscard]] virtual std::string names() const = 0;
};

template <typename T>
class TypedVariable final : public OptionVariable {
 public:
  TypedVariable(T& variable, std::span<const engine::Named<T>> names) : variable_(variable), names_(names) {}

  void assign(const std::string& text, const OptionRow& row, std::string_view source) override {
    variable_ = parse_value<T>(text, row, source, names_);
  }
  [[nodiscard]] PlainValue plain(const OptionRow& row) const override {
    return plain_value<T>(variable_, row, names_);
  }
  [[nodiscard]] std::string names() const override {
    if constexpr (kIsOptional<T>) {
      return list_of_names<typename T::value_type>({});
    } else {
      return list_of_names<T>(names_);
    }
  }

 private:
  T& variable_;
  std::span<const engine::Named<T>> names_;
};

}  // namespace voca::tools
