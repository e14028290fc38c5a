#include "engine/base/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/activity.h"
#include "engine/base/error.h"
#include "engine/base/path_status.h"

namespace voca::engine {
namespace {

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

std::function<int(FileStep, const std::filesystem::path&)>& file_fault() {
  static std::function<int(FileStep, const std::filesystem::path&)> fault;
  return fault;
}

/// Whether a test injects a failure into this step; sets errno.
bool injected(FileStep step, const std::filesystem::path& path) {
  if (!file_fault()) return false;
  errno = file_fault()(step, path);
  return errno != 0;
}

constexpr std::size_t kSuffixLength = 6;

std::string temporary_prefix(const std::filesystem::path& path) {
  return "." + path.filename().string() + ".";
}

/// Creates a new file next to `target`, mode 0666 less the umask. Returns −1 and sets errno on failure.
int create_temporary(const std::filesystem::path& target, std::filesystem::path& temporary) {
  constexpr std::string_view kCharacters = "abcdefghijklmnopqrstuvwxyz0123456789";
  for (;;) {
    std::array<unsigned char, kSuffixLength> random{};
    if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) return -1;
    std::string name = temporary_prefix(target);
    for (const unsigned char byte : random) name += kCharacters[byte % kCharacters.size()];
    temporary = folder_of(target) / name;
    const int descriptor = ::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0 || errno != EEXIST) return descriptor;
  }
}

/// Locks a fresh temporary file for the life of the descriptor. Returns false if another process took it for
/// a leftover and removed it first. Without lock support in the file system nothing is locked, and nothing is
/// removed.
bool take_before_others_sweep(int descriptor) {
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) return errno != EWOULDBLOCK;
  struct stat status {};
  return ::fstat(descriptor, &status) != 0 || status.st_nlink > 0;
}

/// Removes a temporary file whose writer is gone. A file that cannot be opened or locked may have a live
/// writer.
void remove_unless_held(const std::filesystem::path& file) {
  const UniqueFd descriptor(::open(file.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status {};
  if (descriptor.get() < 0 || ::fstat(descriptor.get(), &status) != 0 || !S_ISREG(status.st_mode)) return;
  if (::flock(descriptor.get(), LOCK_EX | LOCK_NB) != 0) return;
  if (::unlink(file.c_str()) != 0 && errno != ENOENT) throw_errno(file, "remove");
}

}  // namespace

void sync_folder(const std::filesystem::path& folder) {
  const UniqueFd descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor) throw_errno(folder, "open the folder");
  // Some network file systems report EINVAL because they cannot sync a folder; the rename itself holds.
  if (::fsync(descriptor.get()) != 0 && errno != EINVAL) throw_errno(folder, "sync the folder");
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)), target_(write_target(path_)) {
  do {
    descriptor_.reset(injected(FileStep::kCreate, path_) ? -1 : create_temporary(target_, temporary_));
    if (!descriptor_) throw_errno(path_, "create a temporary file beside it");
  } while (!take_before_others_sweep(descriptor_.get()));
}

AtomicFile::~AtomicFile() {
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  // In chunks, so that each reports progress.
  constexpr std::size_t kMaxAtOnce = std::size_t{16} << 20;
  while (!bytes.empty()) {
    report_activity("writing a file");
    const std::size_t piece = std::min(bytes.size(), kMaxAtOnce);
    const ssize_t written =
        injected(FileStep::kWrite, path_) ? -1 : ::write(descriptor_.get(), bytes.data(), piece);
    if (written < 0) {
      if (errno == EINTR) continue;
      throw_errno(path_, "write");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::write(const std::string& text) {
  write(std::as_bytes(std::span(text)));
}

void AtomicFile::commit(const std::function<void(const std::filesystem::path&)>& verify) {
  if (injected(FileStep::kSync, path_) || ::fsync(descriptor_.get()) != 0) throw_errno(path_, "sync");
  // Closing can fail and must precede verification; the duplicate descriptor keeps the lock.
  const UniqueFd lock(::fcntl(descriptor_.get(), F_DUPFD_CLOEXEC, 0));
  if (!lock) throw_errno(path_, "keep the lock on its temporary file");
  if (injected(FileStep::kClose, path_)) throw_errno(path_, "close");
  if (::close(descriptor_.release()) != 0) throw_errno(path_, "close");
  if (verify) verify(temporary_);
  if (injected(FileStep::kRename, path_) || ::rename(temporary_.c_str(), target_.c_str()) != 0)
    throw_errno(path_, "rename the finished file into place");
  committed_ = true;
  if (injected(FileStep::kSyncFolder, path_)) throw_errno(folder_of(target_), "sync the folder");
  sync_folder(folder_of(target_));
}

std::filesystem::path write_target(const std::filesystem::path& path) {
  constexpr int kMaxLinks = 40;  // the kernel's own limit
  std::filesystem::path target = path;
  for (int links = 0;; ++links) {
    std::error_code error;
    const std::filesystem::path next = std::filesystem::read_symlink(target, error);
    // Not a link, or nothing exists (yet): this is the target.
    if (error == std::errc::invalid_argument || error == std::errc::no_such_file_or_directory ||
        error == std::errc::not_a_directory)
      return target;
    if (error) throw IoError("{}: cannot follow the link: {}", path.string(), error.message());
    if (links == kMaxLinks) throw IoError("{}: a loop of links", path.string());
    target = next.is_absolute() ? next : folder_of(target) / next;
  }
}

void remove_stale_temporaries(const std::filesystem::path& path) {
  const std::filesystem::path target = write_target(path);
  const std::string prefix = temporary_prefix(target);
  std::error_code error;
  std::vector<std::filesystem::path> found;
  for (std::filesystem::directory_iterator entry(folder_of(target), error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(prefix) && name.size() == prefix.size() + kSuffixLength &&
        name.find('.', prefix.size()) == std::string::npos)
      found.push_back(entry->path());
  }
  if (error) throw IoError("{}: cannot read the folder: {}", folder_of(target).string(), error.message());
  for (const auto& file : found) remove_unless_held(file);
}

void make_folders(const std::filesystem::path& folder) {
  std::error_code error;
  std::vector<std::filesystem::path> missing;
  std::filesystem::path nearest = folder.has_filename() ? folder : folder.parent_path();
  while (!nearest.empty() && !std::filesystem::exists(nearest, error) && !error) {
    missing.push_back(nearest);
    nearest = nearest.parent_path();
  }
  if (!error) std::filesystem::create_directories(folder, error);
  if (error) throw IoError("{}: cannot make the folder: {}", folder.string(), error.message());
  for (const auto& made : missing) sync_folder(folder_of(made));
}

void set_file_fault(std::function<int(FileStep, const std::filesystem::path&)> fault) {
  file_fault() = std::move(fault);
}

void write_file_atomically(const std::filesystem::path& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes, bool pipes) {
  // Non-blocking if it must be a regular file: opening a named pipe would wait forever.
  const UniqueFd descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | (pipes ? 0 : O_NONBLOCK)));
  if (!descriptor) throw_errno(path, "open");
  struct stat status {};
  if (!pipes && ::fstat(descriptor.get(), &status) == 0 &&
      (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)))
    throw DataError("{}: is not a regular file", path.string());
  std::string text;
  std::array<char, 65536> buffer{};
  for (;;) {
    const ssize_t count =
        uninterrupted([&] { return ::read(descriptor.get(), buffer.data(), buffer.size()); });
    if (count < 0) throw_errno(path, "read");
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
    if (text.size() > max_bytes)
      throw DataError("{}: larger than the {} bytes such a file may have", path.string(), max_bytes);
  }
}

}  // namespace voca::engine
