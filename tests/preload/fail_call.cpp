// A library to preload (LD_PRELOAD): the k-th call of a kind on a path fails, as a disk, a limit or a network
// file system would have it. What it is told, in the environment:
//
// - VOCA_FAIL_KIND: one of kNames
// - VOCA_FAIL_PATH: text that the absolute path must hold (not asked of thread)
// - VOCA_FAIL_AT: k, from 1; 0: nothing fails
// - VOCA_FAIL_ERRNO: the number
// - VOCA_FAIL_LOG: a file that gets "failed CALL PATH" for the call, and at the end of a process that ends by
//   itself "calls KIND COUNT" for every kind
//
// Out of reach is what the C library calls inside itself: the reads and writes behind a FILE other than fread
// and fwrite, the loader's, and calls made without the library.

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

enum Kind : std::size_t {
  kOpen,
  kRead,
  kWrite,
  kSync,
  kClose,
  kRename,
  kRemove,
  kMkdir,
  kStat,
  kRoom,
  kMap,
  kList,
  kLink,
  kLock,
  kThread
};
constexpr std::array kNames{"open", "read", "write", "sync", "close", "rename", "remove", "mkdir",
                            "stat", "room", "map",   "list", "link",  "lock",   "thread"};

std::array<std::atomic<long>, kNames.size()> calls{};

const char* variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// By a system call of its own: this library's functions are not to be counted.
void log_line(const char* text) {
  const auto file = static_cast<int>(::syscall(SYS_openat, AT_FDCWD, variable("VOCA_FAIL_LOG"),
                                               O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (file < 0) return;
  static_cast<void>(::syscall(SYS_write, file, text, std::strlen(text)));
  ::syscall(SYS_close, file);
}

using Text = std::array<char, 8192>;

Text absolute(const char* path) {
  Text text{};
  if (path == nullptr) return text;
  if (path[0] != '/' && ::syscall(SYS_getcwd, text.data(), text.size() / 2) > 0)
    std::strncat(text.data(), "/", 2);
  std::strncat(text.data(), path, text.size() / 2 - 1);
  return text;
}

Text path_of(int descriptor) {
  Text text{};
  std::array<char, 64> link{};
  std::snprintf(link.data(), link.size(), "/proc/self/fd/%d", descriptor);
  static_cast<void>(::syscall(SYS_readlinkat, AT_FDCWD, link.data(), text.data(), text.size() - 1));
  return text;
}

/// Counts the call; true where it is the one to fail, with errno set.
bool fails(Kind kind, const char* call, const Text& path) {
  const char* const wanted = variable("VOCA_FAIL_PATH");
  if (kind != kThread && (wanted[0] == '\0' || std::strstr(path.data(), wanted) == nullptr)) return false;
  const long count = ++calls[kind];
  if (std::strcmp(variable("VOCA_FAIL_KIND"), kNames[kind]) != 0 ||
      std::atol(variable("VOCA_FAIL_AT")) != count)
    return false;
  Text line{};
  std::snprintf(line.data(), line.size(), "failed %s %.4000s\n", call, path.data());
  log_line(line.data());
  errno = std::atoi(variable("VOCA_FAIL_ERRNO"));
  return true;
}
bool fails(Kind kind, const char* call, const char* path) {
  return fails(kind, call, absolute(path));
}
bool fails(Kind kind, const char* call, int descriptor) {
  const int before = errno;
  const bool failing = fails(kind, call, path_of(descriptor));
  if (!failing) errno = before;
  return failing;
}

template <typename Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

struct AtExit {
  ~AtExit() {
    for (std::size_t i = 0; i < kNames.size(); ++i) {
      std::array<char, 64> line{};
      std::snprintf(line.data(), line.size(), "calls %s %ld\n", kNames[i], calls[i].load());
      log_line(line.data());
    }
  }
} at_exit;

}  // namespace

#define VOCA_REAL(name) static const auto real_##name = real<decltype(&(name))>(#name)
/// A function whose first argument, a path or a descriptor, is what it is about.
#define VOCA_CALL(kind, result, name, failed, parameters, arguments, subject, qualifier) \
  extern "C" result name parameters qualifier {                                          \
    VOCA_REAL(name);                                                                     \
    return fails(kind, #name, subject) ? (failed) : real_##name arguments;               \
  }

#define VOCA_OPEN(name, parameters, arguments)                     \
  extern "C" int name parameters {                                 \
    VOCA_REAL(name);                                               \
    mode_t mode = 0;                                               \
    if ((flags & (O_CREAT | O_TMPFILE)) != 0) {                    \
      va_list rest;                                                \
      va_start(rest, flags);                                       \
      mode = va_arg(rest, mode_t);                                 \
      va_end(rest);                                                \
    }                                                              \
    return fails(kOpen, #name, path) ? -1 : real_##name arguments; \
  }
VOCA_OPEN(open, (const char* path, int flags, ...), (path, flags, mode))
VOCA_OPEN(open64, (const char* path, int flags, ...), (path, flags, mode))
VOCA_OPEN(openat, (int folder, const char* path, int flags, ...), (folder, path, flags, mode))
VOCA_OPEN(openat64, (int folder, const char* path, int flags, ...), (folder, path, flags, mode))
VOCA_CALL(kOpen, FILE*, fopen, nullptr, (const char* path, const char* mode), (path, mode), path, )
VOCA_CALL(kOpen, FILE*, fopen64, nullptr, (const char* path, const char* mode), (path, mode), path, )
VOCA_CALL(kOpen, int, mkostemp, -1, (char* path, int flags), (path, flags), path, )
VOCA_CALL(kOpen, int, mkstemp, -1, (char* path), (path), path, )
VOCA_CALL(kOpen, int, mkstemp64, -1, (char* path), (path), path, )

VOCA_CALL(kRead, ssize_t, read, -1, (int file, void* to, size_t size), (file, to, size), file, )
VOCA_CALL(kRead, ssize_t, pread, -1, (int file, void* to, size_t size, off_t at), (file, to, size, at),
          file, )
VOCA_CALL(kRead, ssize_t, pread64, -1, (int file, void* to, size_t size, off64_t at), (file, to, size, at),
          file, )
VOCA_CALL(kWrite, ssize_t, write, -1, (int file, const void* from, size_t size), (file, from, size), file, )
VOCA_CALL(kWrite, ssize_t, pwrite, -1, (int file, const void* from, size_t size, off_t at),
          (file, from, size, at), file, )
VOCA_CALL(kWrite, ssize_t, pwrite64, -1, (int file, const void* from, size_t size, off64_t at),
          (file, from, size, at), file, )
VOCA_CALL(kWrite, ssize_t, writev, -1, (int file, const iovec* from, int count), (file, from, count), file, )

/// A FILE's error is a flag of its own.
size_t failed(FILE* file) {
  file->_flags |= 0x20;  // _IO_ERR_SEEN
  return 0;
}
extern "C" size_t fread(void* to, size_t size, size_t count, FILE* file) {
  VOCA_REAL(fread);
  return fails(kRead, "fread", ::fileno(file)) ? failed(file) : real_fread(to, size, count, file);
}
extern "C" size_t fwrite(const void* from, size_t size, size_t count, FILE* file) {
  VOCA_REAL(fwrite);
  return fails(kWrite, "fwrite", ::fileno(file)) ? failed(file) : real_fwrite(from, size, count, file);
}

VOCA_CALL(kSync, int, fsync, -1, (int file), (file), file, )
VOCA_CALL(kSync, int, fdatasync, -1, (int file), (file), file, )

// Closed all the same, as the system does.
extern "C" int close(int file) {
  VOCA_REAL(close);
  const bool failing = fails(kClose, "close", file);
  const int reason = errno;
  const int result = real_close(file);
  if (!failing) return result;
  errno = reason;
  return -1;
}
extern "C" int fclose(FILE* file) {
  VOCA_REAL(fclose);
  const bool failing = fails(kClose, "fclose", ::fileno(file));
  const int reason = errno;
  const int result = real_fclose(file);
  if (!failing) return result;
  errno = reason;
  return EOF;
}

VOCA_CALL(kRename, int, rename, -1, (const char* from, const char* to), (from, to), to, noexcept)
VOCA_CALL(kRemove, int, unlink, -1, (const char* path), (path), path, noexcept)
VOCA_CALL(kRemove, int, unlinkat, -1, (int folder, const char* path, int flags), (folder, path, flags), path,
          noexcept)
VOCA_CALL(kRemove, int, remove, -1, (const char* path), (path), path, noexcept)
VOCA_CALL(kRemove, int, rmdir, -1, (const char* path), (path), path, noexcept)
VOCA_CALL(kMkdir, int, mkdir, -1, (const char* path, mode_t mode), (path, mode), path, noexcept)
VOCA_CALL(kMkdir, char*, mkdtemp, nullptr, (char* path), (path), path, noexcept)

VOCA_CALL(kStat, int, stat, -1, (const char* path, struct stat* to), (path, to), path, noexcept)
VOCA_CALL(kStat, int, stat64, -1, (const char* path, struct stat64* to), (path, to), path, noexcept)
VOCA_CALL(kStat, int, lstat, -1, (const char* path, struct stat* to), (path, to), path, noexcept)
VOCA_CALL(kStat, int, lstat64, -1, (const char* path, struct stat64* to), (path, to), path, noexcept)
VOCA_CALL(kStat, int, fstat, -1, (int file, struct stat* to), (file, to), file, noexcept)
VOCA_CALL(kStat, int, fstat64, -1, (int file, struct stat64* to), (file, to), file, noexcept)
VOCA_CALL(kStat, int, access, -1, (const char* path, int how), (path, how), path, noexcept)

VOCA_CALL(kRoom, int, ftruncate, -1, (int file, off_t size), (file, size), file, noexcept)
VOCA_CALL(kRoom, int, ftruncate64, -1, (int file, off64_t size), (file, size), file, noexcept)
VOCA_CALL(kRoom, int, fallocate, -1, (int file, int how, off_t at, off_t size), (file, how, at, size), file, )
VOCA_CALL(kMap, void*, mmap, MAP_FAILED, (void* at, size_t size, int how, int flags, int file, off_t from),
          (at, size, how, flags, file, from), file, noexcept)
VOCA_CALL(kMap, void*, mmap64, MAP_FAILED,
          (void* at, size_t size, int how, int flags, int file, off64_t from),
          (at, size, how, flags, file, from), file, noexcept)
VOCA_CALL(kList, DIR*, opendir, nullptr, (const char* path), (path), path, )
VOCA_CALL(kList, dirent*, readdir, nullptr, (DIR * folder), (folder), ::dirfd(folder), )
VOCA_CALL(kList, dirent64*, readdir64, nullptr, (DIR * folder), (folder), ::dirfd(folder), )
VOCA_CALL(kLink, ssize_t, readlink, -1, (const char* path, char* to, size_t size), (path, to, size), path,
          noexcept)
VOCA_CALL(kLock, int, flock, -1, (int file, int how), (file, how), file, noexcept)

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                              void* argument) noexcept {
  VOCA_REAL(pthread_create);
  return fails(kThread, "pthread_create", "") ? errno
                                              : real_pthread_create(thread, attributes, start, argument);
}
