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
/// and what stood at `path` is untouched. Of a symbolic link the target is replaced, or made where it
/// dangles. The temporary file is locked while the object lives: see remove_stale_temporaries(). Every
/// failure throws IoError naming the path and the system's reason.
class AtomicFile {
 public:
  /// Creates the temporary file, readable and writable as the umask leaves it. The folder must exist.
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
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  bool committed_ = false;
};

/// The file that writing to `path` makes or replaces: the end of a chain of symbolic links, there or not.
/// Throws IoError for a link that cannot be followed.
[[nodiscard]] std::filesystem::path write_target(const std::filesystem::path& path);

/// Removes the temporary files of `path` that a killed process left beside it; those of a living AtomicFile,
/// of any process, stay. Throws IoError when the folder cannot be read or a file not removed.
void remove_stale_temporaries(const std::filesystem::path& path);

/// Makes the folder and those above it, so that they are still there after a power cut. Throws IoError.
void make_folders(const std::filesystem::path& folder);

/// Brings the folder's entries to the disk. Throws IoError.
void sync_folder(const std::filesystem::path& folder);

/// The steps of an AtomicFile that can fail.
enum class FileStep : std::uint8_t { kCreate, kWrite, kSync, kClose, kRename, kSyncFolder };

/// For tests: asked before every step of every AtomicFile with the path it will have; returns 0 to go on, or
/// the errno the step is to fail with. Empty switches it off. Not for use while other threads write files.
void set_file_fault(std::function<int(FileStep, const std::filesystem::path&)> fault);

/// Writes `text` to `path` through an AtomicFile.
void write_file_atomically(const std::filesystem::path& path, const std::string& text);

/// The whole of a small text file; with `pipes` also what a pipe or device has to say. Throws IoError, or
/// DataError when it is larger than `max_bytes` or no such file.
[[nodiscard]] std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes,
                                         bool pipes = false);

}  // namespace voca::engine
