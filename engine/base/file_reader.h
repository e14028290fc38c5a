#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "engine/base/unique_fd.h"

namespace voca::engine {

/// A file with positioned reads; safe to use from several threads.
class FileReader {
 public:
  /// Throws ReadError when the file cannot be opened, DataError when it is not a regular file.
  explicit FileReader(std::filesystem::path path);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// Size in bytes when the file was opened.
  [[nodiscard]] std::uint64_t size() const { return size_; }
  /// Overwrites `out` with the bytes starting at `offset`. Throws DataError past the end, ReadError when
  /// reading fails.
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  [[nodiscard]] std::vector<std::byte> read(std::uint64_t offset, std::uint64_t count) const;
  /// CRC-32C of [offset, offset + count), read in pieces; continued from `crc` like crc32c().
  [[nodiscard]] std::uint32_t checksum(std::uint64_t offset, std::uint64_t count,
                                       std::uint32_t crc = 0) const;

 private:
  [[noreturn]] void fail(std::string_view action) const;
  void check_range(std::uint64_t offset, std::uint64_t count) const;

  std::filesystem::path path_;
  UniqueFd descriptor_;
  std::uint64_t size_ = 0;
};

}  // namespace voca::engine
