#pragma once

#include <cstddef>
#include <cstdint>
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

/// Removes the temporary files of `path` that a killed process left beside it. The caller knows that no other
/// process is writing `path`. Throws IoError when the folder cannot be read or a file not removed.
void remove_stale_temporaries(const std::filesystem::path& path);

/// The steps of an AtomicFile that can fail.
enum class FileStep : std::uint8_t { kCreate, kWrite, kSync, kClose, kRename, kSyncFolder };

/// For tests: asked before every step of every AtomicFile with the path it will have; returns 0 to go on, or
/// the errno the step is to fail with. Empty switches it off. Not for use while other threads write files.
void set_file_fault(std::function<int(FileStep, const std::filesystem::path&)> fault);

/// Writes `text` to `path` through an AtomicFile.
void write_file_atomically(const std::filesystem::path& path, const std::string& text);

/// The whole of a small text file. Throws IoError, or DataError when it is larger than `max_bytes`.
[[nodiscard]] std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes);

}  // namespace voca::engine
