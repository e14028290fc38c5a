#pragma once

#include <cerrno>
#include <cstdint>
#include <filesystem>

// What the file system says of a path. That it says nothing, because it failed, is an error here and never
// "there is no such file": what cannot be looked at might hold half of the data.

namespace voca::engine {

/// Repeats a system call that a signal broke off; `call` returns what is negative when it fails.
template <typename Call>
auto uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

/// Whether errno's value says that no file has that name, and not that looking for it failed.
[[nodiscard]] bool says_absent(int error_number);

/// What a path leads to, links followed.
enum class PathKind : std::uint8_t { kAbsent, kFile, kFolder, kOther };
/// Throws IoError naming the path when the file system does not say.
[[nodiscard]] PathKind path_kind(const std::filesystem::path& path);
[[nodiscard]] bool is_there(const std::filesystem::path& path);
[[nodiscard]] bool is_folder(const std::filesystem::path& path);

}  // namespace voca::engine
