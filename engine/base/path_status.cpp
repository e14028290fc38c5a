#include "engine/base/path_status.h"

#include <sys/stat.h>

#include <cstring>

#include "engine/base/error.h"

namespace voca::engine {

void throw_errno(const std::filesystem::path& path, std::string_view action) {
  const int error_number = errno;
  throw IoError("{}: cannot {}: {}", path.string(), action, std::strerror(error_number));
}

bool says_absent(int error_number) {
  return error_number == ENOENT || error_number == ENOTDIR || error_number == ENAMETOOLONG;
}

PathKind path_kind(const std::filesystem::path& path) {
  struct stat status {};
  if (uninterrupted([&] { return ::stat(path.c_str(), &status); }) != 0) {
    if (says_absent(errno)) return PathKind::kAbsent;
    throw_errno(path, "be looked at");
  }
  if (S_ISDIR(status.st_mode)) return PathKind::kFolder;
  return S_ISREG(status.st_mode) ? PathKind::kFile : PathKind::kOther;
}

bool is_there(const std::filesystem::path& path) {
  return path_kind(path) != PathKind::kAbsent;
}

bool is_folder(const std::filesystem::path& path) {
  return path_kind(path) == PathKind::kFolder;
}

}  // namespace voca::engine
