#include "engine/base/file_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/base/activity.h"
#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/path_status.h"

namespace voca::engine {

FileReader::FileReader(std::filesystem::path path) : path_(std::move(path)) {
  // O_NONBLOCK keeps a pipe of that name from hanging the program.
  descriptor_.reset(uninterrupted([&] { return ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
  struct stat status {};
  if (descriptor_.get() < 0 || ::fstat(descriptor_.get(), &status) != 0) fail("open");
  if (!S_ISREG(status.st_mode)) throw DataError("{}: not a regular file", path_.string());
  size_ = static_cast<std::uint64_t>(status.st_size);
}

void FileReader::fail(std::string_view action) const {
  const int error_number = errno;
  throw ReadError(error_number,
                  fmt::format("{}: cannot {}: {}", path_.string(), action, std::strerror(error_number)));
}

void FileReader::check_range(std::uint64_t offset, std::uint64_t count) const {
  if (offset > size_ || count > size_ - offset) {
    throw DataError("{}: ends at {} bytes, before what it should hold at {}; the file is truncated",
                    path_.string(), size_, offset);
  }
}

void FileReader::read(std::uint64_t offset, std::span<std::byte> out) const {
  check_range(offset, out.size());
  // Reads in pieces, each of which counts as progress.
  constexpr std::size_t kMaxAtOnce = std::size_t{16} << 20;
  while (!out.empty()) {
    report_activity("reading a file");
    const std::size_t piece = std::min(out.size(), kMaxAtOnce);
    const ssize_t count = uninterrupted(
        [&] { return ::pread(descriptor_.get(), out.data(), piece, static_cast<off_t>(offset)); });
    if (count < 0) fail("read");
    if (count == 0) throw DataError("{}: became shorter while it was read", path_.string());
    out = out.subspan(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

std::vector<std::byte> FileReader::read(std::uint64_t offset, std::uint64_t count) const {
  check_range(offset, count);
  std::vector<std::byte> bytes(count);
  read(offset, bytes);
  return bytes;
}

std::uint32_t FileReader::checksum(std::uint64_t offset, std::uint64_t count, std::uint32_t crc) const {
  constexpr std::uint64_t kPiece = std::uint64_t{1} << 20;
  check_range(offset, count);
  std::vector<std::byte> buffer(std::min(kPiece, count));
  while (count > 0) {
    const auto part = std::span(buffer).first(std::min(kPiece, count));
    read(offset, part);
    crc = crc32c(part, crc);
    offset += part.size();
    count -= part.size();
  }
  return crc;
}

}  // namespace voca::engine
