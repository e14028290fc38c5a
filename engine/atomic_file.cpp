#include "engine/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/error.h"

namespace voca::engine {
namespace {

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

[[noreturn]] void fail(const std::filesystem::path& path, const char* action) {
  const int error_number = errno;
  throw IoError("{}: cannot {}: {}", path.string(), action, std::strerror(error_number));
}

std::function<int(FileStep, const std::filesystem::path&)>& file_fault() {
  static std::function<int(FileStep, const std::filesystem::path&)> fault;
  return fault;
}

/// Whether the step is to fail because a test says so; sets errno.
bool injected(FileStep step, const std::filesystem::path& path) {
  if (!file_fault()) return false;
  errno = file_fault()(step, path);
  return errno != 0;
}

/// mkostemp's six characters.
constexpr std::size_t kSuffixLength = 6;

std::string temporary_prefix(const std::filesystem::path& path) {
  return "." + path.filename().string() + ".";
}

void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail(folder, "open the folder");
  const int result = ::fsync(descriptor);
  const int error_number = errno;
  ::close(descriptor);
  // Some network file systems cannot sync a folder and say so with EINVAL; the rename itself stands.
  if (result != 0 && error_number != EINVAL) {
    errno = error_number;
    fail(folder, "sync the folder");
  }
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  std::string name =
      (folder_of(path_) / (temporary_prefix(path_) + std::string(kSuffixLength, 'X'))).string();
  descriptor_ = injected(FileStep::kCreate, path_) ? -1 : ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor_ < 0) fail(path_, "create a temporary file beside it");
  temporary_ = name;
  ::fchmod(descriptor_, 0644);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written =
        injected(FileStep::kWrite, path_) ? -1 : ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(path_, "write");
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::write(const std::string& text) {
  write(std::as_bytes(std::span(text)));
}

void AtomicFile::commit(const std::function<void(const std::filesystem::path&)>& verify) {
  if (injected(FileStep::kSync, path_) || ::fsync(descriptor_) != 0) fail(path_, "sync");
  const bool fails_to_close = injected(FileStep::kClose, path_);
  const int error_number = errno;
  if (::close(std::exchange(descriptor_, -1)) != 0) fail(path_, "close");
  if (fails_to_close) {
    errno = error_number;
    fail(path_, "close");
  }
  if (verify) verify(temporary_);
  if (injected(FileStep::kRename, path_) || ::rename(temporary_.c_str(), path_.c_str()) != 0)
    fail(path_, "rename the finished file into place");
  committed_ = true;
  if (injected(FileStep::kSyncFolder, path_)) fail(folder_of(path_), "sync the folder");
  sync_folder(folder_of(path_));
}

void remove_stale_temporaries(const std::filesystem::path& path) {
  const std::string prefix = temporary_prefix(path);
  std::error_code error;
  std::vector<std::filesystem::path> stale;
  for (std::filesystem::directory_iterator entry(folder_of(path), error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(prefix) && name.size() == prefix.size() + kSuffixLength &&
        name.find('.', prefix.size()) == std::string::npos)
      stale.push_back(entry->path());
  }
  if (error) throw IoError("{}: cannot read the folder: {}", folder_of(path).string(), error.message());
  for (const auto& file : stale)
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) fail(file, "remove");
}

void set_file_fault(std::function<int(FileStep, const std::filesystem::path&)> fault) {
  file_fault() = std::move(fault);
}

void write_file_atomically(const std::filesystem::path& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail(path, "open");
  std::string text;
  std::array<char, 65536> buffer{};
  for (;;) {
    const ssize_t count = ::read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error_number = errno;
      ::close(descriptor);
      errno = error_number;
      fail(path, "read");
    }
    if (count == 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(count));
    if (text.size() > max_bytes) {
      ::close(descriptor);
      throw DataError("{}: larger than the {} bytes such a file may have", path.string(), max_bytes);
    }
  }
  ::close(descriptor);
  return text;
}

}  // namespace voca::engine
