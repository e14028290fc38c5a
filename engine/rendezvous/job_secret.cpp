#include "engine/rendezvous/job_secret.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "engine/base/error.h"
#include "engine/base/path_status.h"
#include "engine/base/terminal.h"
#include "engine/base/unique_fd.h"

namespace voca::engine {
namespace {

constexpr std::size_t kShortest = 16;
constexpr std::size_t kMax = 4096;
constexpr const char* kHowToMake = "make one with: openssl rand -hex 32";

/// Whether only this user has access to the file.
bool is_private(const struct stat& status) {
  return status.st_uid == ::geteuid() && (status.st_mode & (S_IRWXG | S_IRWXO)) == 0;
}

std::string checked(std::string secret, const std::string& source) {
  while (!secret.empty() && std::strchr(" \t\r\n", secret.back()) != nullptr) secret.pop_back();
  if (secret.size() < kShortest || secret.size() > kMax) {
    throw UsageError("{}: holds {} characters, expected a secret of {} to {}; {}", source, secret.size(),
                     kShortest, kMax, kHowToMake);
  }
  return secret;
}

/// Reads from an open file, so that the file checked is the file read.
std::string read_secret(const UniqueFd& file, const std::string& source) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) throw IoError("{}: {}", source, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw UsageError("{}: is not a file", source);
  if (!is_private(status)) {
    throw UsageError(
        "{}: has mode {:o} and belongs to user {}; a secret must be its user's alone: chmod 600, as user {}",
        source, status.st_mode & 07777U, status.st_uid, ::geteuid());
  }
  std::string text(kMax + 2, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(file.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw IoError("{}: {}", source, std::strerror(errno));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return checked(std::move(text), source);
}

/// Writes a secret to a temporary file and links it to `name`, so that readers always find a complete file.
/// If another rank was first, its file is kept.
void make_secret(const UniqueFd& folder, const std::string& name, const std::string& path) {
  const std::string temporary = fmt::format("{}.{}.{}", name, ::getpid(), fresh_secret().substr(0, 8));
  const UniqueFd file(
      ::openat(folder.get(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (file.get() < 0) throw_errno(path, "be made");
  int failed = 0;
  try {
    if (!write_at_once(file.get(), fresh_secret() + "\n") || ::fsync(file.get()) != 0)
      throw IoError("{}: {}", path, std::strerror(errno));
    if (::linkat(folder.get(), temporary.c_str(), folder.get(), name.c_str(), 0) != 0) failed = errno;
  } catch (const IoError&) {
    ::unlinkat(folder.get(), temporary.c_str(), 0);
    throw;
  }
  ::unlinkat(folder.get(), temporary.c_str(), 0);
  errno = failed;
  if (failed != 0 && failed != EEXIST) throw_errno(path, "be made");
}

}  // namespace

std::string fresh_secret() {
  std::array<unsigned char, 32> bytes{};
  // getrandom(2) returns requests of up to 256 bytes in full; a signal can interrupt the wait for the entropy
  // pool.
  while (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    if (errno != EINTR) throw IoError("getrandom: {}", std::strerror(errno));
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

std::string given_secret(const EnvVars& variables) {
  const std::string secret = variables.text("VOCA_JOB_SECRET");
  const std::string path = variables.text("VOCA_JOB_SECRET_FILE");
  if (!secret.empty() && !path.empty())
    throw UsageError("VOCA_JOB_SECRET_FILE: is set beside VOCA_JOB_SECRET; unset one of them");
  if (!secret.empty()) return checked(secret, "VOCA_JOB_SECRET");
  if (path.empty()) return {};
  // With O_NONBLOCK a pipe is refused instead of waited for.
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) throw IoError("VOCA_JOB_SECRET_FILE: {}: {}", path, std::strerror(errno));
  return read_secret(file, "VOCA_JOB_SECRET_FILE: " + path);
}

std::string user_secret(const std::filesystem::path& parent) {
  const std::string name = "secret";
  const std::filesystem::path path = parent / fmt::format("voca-engine-{}", ::geteuid());
  const std::string shown = (path / name).string();
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) throw_errno(path, "be made");
  const UniqueFd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat status {};
  if (folder.get() < 0 || ::fstat(folder.get(), &status) != 0 || !is_private(status)) {
    throw UsageError(
        "{}: is not a folder of this user alone (mode 700); remove it, or set VOCA_JOB_SECRET for all ranks",
        path.string());
  }
  // The file exists by the second iteration, created by this rank or another one, and can disappear again
  // only if someone removes it.
  for (int turn = 0; turn < 3; ++turn) {
    const UniqueFd file(::openat(folder.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
    if (file.get() >= 0) return read_secret(file, shown);
    if (errno != ENOENT) throw IoError("{}: {}", shown, std::strerror(errno));
    make_secret(folder, name, shown);
  }
  throw IoError("{}: was removed as soon as it was made", shown);
}

}  // namespace voca::engine
