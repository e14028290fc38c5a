#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

namespace voca::engine {

/// A file that appears whole or not at all: bytes go to a temporary file in the same folder; commit() syncs
/// it, renames it over `path` and syncs the folder. Destroyed without commit(), the temporary file is removed
/// and what stood at `path` is untouched. Every failure throws IoError naming the path and the system's
/// reason.
class AtomicFile {
 public:
  /// Creates the temporary file. The folder must exist.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends; retries short writes and interruptions.
  void write(std::span<const std::byte> bytes);
  void write(const std::string& text);
  /// Where the bytes go until commit(): for libraries that write by name. They must have closed it before
  /// commit().
  [[nodiscard]] const std::filesystem::path& temporary_path() const { return temporary_; }
  /// Syncs, calls `verify` (if given) with the temporary path, which may throw, then renames and syncs the
  /// folder.
  void commit(const std::function<void(const std::filesystem::path&)>& verify = {});

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  bool committed_ = false;
};

/// Writes `text` to `path` through an AtomicFile.
void write_file_atomically(const std::filesystem::path& path, const std::string& text);

/// The whole of a small text file. Throws IoError, or DataError when it is larger than `max_bytes`.
[[nodiscard]] std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes);

}  // namespace voca::engine
