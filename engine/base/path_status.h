#pragma once

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <string_view>

// Queries of the file system about a path. A failed query throws; it is never reported as "no such file",
// because the file might exist and hold half of the data.

namespace voca::engine {

/// Throws the IoError of a failed system call, whose reason is in errno: "<path>: cannot <action>: <reason>".
[[noreturn]] void throw_errno(const std::filesystem::path& path, std::string_view action);

/// Repeats a system call that a signal interrupts; `call` returns a negative value on failure.
template <typename Call>
auto uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

/// Whether this errno means that no such file exists, rather than that the query failed.
[[nodiscard]] bool says_absent(int error_number);

/// Type of the file at a path, symbolic links followed.
enum class PathKind : std::uint8_t { kAbsent, kFile, kFolder, kOther };
/// Throws IoError with the path if the file system cannot tell.
[[nodiscard]] PathKind path_kind(const std::filesystem::path& path);
[[nodiscard]] bool is_there(const std::filesystem::path& path);
[[nodiscard]] bool is_folder(const std::filesystem::path& path);

}  // namespace voca::engine
