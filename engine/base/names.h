#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>

// The names of an enumeration's values stand in one table, `names_of(E)`, next to the enumeration. Options,
// help, messages and files take them from there:
//
//   enum class Cut : std::uint8_t { kShort, kLong };
//   constexpr auto names_of(Cut /*tag*/) {
//     return std::to_array<engine::Named<Cut>>({{"short", Cut::kShort}, {"long", Cut::kLong}});
//   }

namespace voca::engine {

/// A value and its name. A further name of a value that has one is an alias: it is read, but neither listed
/// nor written.
template <typename T>
struct Named {
  std::string_view name;
  T value;
};

template <typename T>
concept HasNames = requires(T value) {
  names_of(value);
};

/// The table of an enumeration.
template <HasNames E>
inline constexpr auto kNames = names_of(E{});

/// Name of a value; "unknown" if the table lacks it.
template <typename T>
[[nodiscard]] constexpr std::string_view name_in(std::span<const Named<T>> names, const T& value) {
  for (const Named<T>& one : names)
    if (one.value == value) return one.name;
  return "unknown";
}
template <HasNames E>
[[nodiscard]] constexpr std::string_view name_of(E value) {
  return name_in<E>(kNames<E>, value);
}

/// Value of this name; nullopt if there is none.
template <typename T>
[[nodiscard]] std::optional<T> value_named(std::span<const Named<T>> names, std::string_view name) {
  const auto found =
      std::find_if(names.begin(), names.end(), [&](const auto& one) { return one.name == name; });
  return found == names.end() ? std::nullopt : std::optional<T>(found->value);
}
template <HasNames E>
[[nodiscard]] std::optional<E> value_named(std::string_view name) {
  return value_named<E>(std::span<const Named<E>>(kNames<E>), name);
}

/// The names without aliases: "epoch|step" with `separator` "|".
template <typename T>
[[nodiscard]] std::string list_of_names(std::span<const Named<T>> names, std::string_view separator) {
  std::string list;
  for (auto one = names.begin(); one != names.end(); ++one) {
    if (std::any_of(names.begin(), one, [&](const auto& earlier) { return earlier.value == one->value; }))
      continue;
    if (!list.empty()) list += separator;
    list += one->name;
  }
  return list;
}

}  // namespace voca::engine
