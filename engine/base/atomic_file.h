#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "engine/base/unique_fd.h"

namespace voca::engine {

/// A file that appears whole or not at all: bytes go to a temporary file in the same folder; commit() syncs
/// it, renames it over `path` and syncs the folder. Without commit(), the destructor removes the temporary
/// file and `path` keeps its old content. If `path` is a symbolic link, its target is replaced, or created if
/// the link dangles. The temporary file is locked while the object lives: see remove_stale_temporaries().
/// Every failure throws IoError with the path and the system's reason.
class AtomicFile {
 public:
  /// Creates the temporary file with permissions 0666 less the umask. The folder must exist.
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends `bytes`; retries short writes and interruptions.
  void write(std::span<const std::byte> bytes);
  void write(const std::string& text);
  /// The file that receives the bytes until commit(), for libraries that write by name. They must close it
  /// before commit().
  [[nodiscard]] const std::filesystem::path& temporary_path() const { return temporary_; }
  /// Syncs, calls `verify` (if given, may throw) with the temporary path, renames and syncs the folder.
  void commit(const std::function<void(const std::filesystem::path&)>& verify = {});

 private:
  std::filesystem::path path_;
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  UniqueFd descriptor_;
  bool committed_ = false;
};

/// The file that a write to `path` creates or replaces: the end of a chain of symbolic links, whether or not
/// it exists. Throws IoError if a link cannot be followed.
[[nodiscard]] std::filesystem::path write_target(const std::filesystem::path& path);

/// Removes temporary files of `path` that a killed process left in its folder; those of a live AtomicFile, in
/// any process, stay. Throws IoError if the folder cannot be read or a file cannot be removed.
void remove_stale_temporaries(const std::filesystem::path& path);

/// Creates the folder and its parents durably, so that they survive a power cut. Throws IoError.
void make_folders(const std::filesystem::path& folder);

/// Syncs the folder's entries to disk. Throws IoError.
void sync_folder(const std::filesystem::path& folder);

/// Steps of an AtomicFile that can fail.
enum class FileStep : std::uint8_t { kCreate, kWrite, kSync, kClose, kRename, kSyncFolder };

/// For tests: `fault` is called before every step of every AtomicFile with the final path; it returns 0 to
/// continue, or the errno with which the step fails. An empty function removes it. Not thread-safe: no other
/// thread may write files meanwhile.
void set_file_fault(std::function<int(FileStep, const std::filesystem::path&)> fault);

/// Writes `text` to `path` through an AtomicFile.
void write_file_atomically(const std::filesystem::path& path, const std::string& text);

/// Reads a whole small text file; with `pipes`, a pipe or character device too. Throws IoError, or DataError
/// if it is larger than `max_bytes` or, without `pipes`, a pipe or character device.
[[nodiscard]] std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes,
                                         bool pipes = false);

}  // namespace voca::engine
