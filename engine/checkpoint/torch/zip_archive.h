#pragma once

// The zip form of PyTorch's files. libzip gives no offsets of stored data, which pread and the check that no
// byte belongs to two records need, so the directory is read here; zlib inflates.
// Format: PKWARE APPNOTE 6.3.9.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/checkpoint/file_reader.h"

namespace voca::engine {

/// One record as the central directory has it.
struct ZipEntry {
  std::string name;
  std::uint64_t size = 0;         ///< bytes of its content
  std::uint64_t stored_size = 0;  ///< bytes it takes in the file
  std::uint64_t header_offset = 0;
  std::uint64_t data_offset = 0;
  std::uint32_t crc32 = 0;
  bool deflated = false;
};

/// A zip file open for reading. Only the central directory is trusted for sizes; local headers must agree
/// with it on name and method. Refused with DataError naming the file: encryption, several disks, methods
/// other than stored and deflate, two records of one name, records that overlap each other or the directory,
/// sizes beyond the file, bytes behind the end record.
class ZipReader {
 public:
  explicit ZipReader(std::filesystem::path path);

  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }
  [[nodiscard]] const FileReader& file() const { return file_; }
  [[nodiscard]] const std::vector<ZipEntry>& entries() const {
    return entries_;
  }  ///< as the directory orders them
  [[nodiscard]] const ZipEntry* find(std::string_view name) const;
  /// Where the central directory begins.
  [[nodiscard]] std::uint64_t directory_offset() const { return directory_offset_; }

  /// The whole content, its CRC-32 verified. Throws DataError when it is larger than `max_bytes`.
  [[nodiscard]] std::vector<std::byte> read(const ZipEntry& entry, std::uint64_t max_bytes) const;
  /// Reads the whole content and throws DataError naming file and record when its CRC-32 differs.
  void verify(const ZipEntry& entry) const;

 private:
  using Visitor = std::function<void(std::span<const std::byte>)>;
  void stream(const ZipEntry& entry, const Visitor& visit) const;
  void inflate(const ZipEntry& entry, const Visitor& visit) const;
  void locate_data(ZipEntry& entry) const;
  void check_overlaps() const;

  FileReader file_;
  std::vector<ZipEntry> entries_;
  std::unordered_map<std::string, std::size_t> index_;
  std::uint64_t directory_offset_ = 0;
};

/// Writes a zip file of stored records as torch.save lays it out: content on 64-byte boundaries (the padding
/// is an extra field "FB"), no data descriptors, ZIP64 fields where a number needs them. The same records
/// give the same bytes: dates are fixed.
class ZipWriter {
 public:
  using Sink = std::function<void(std::span<const std::byte>)>;
  static constexpr std::uint64_t kZip64Threshold = 0xFFFFFFFFU;

  /// `sink` is handed the file's bytes in order. Sizes and offsets of at least `zip64_threshold` are written
  /// as ZIP64; tests lower it.
  explicit ZipWriter(Sink sink, std::uint64_t zip64_threshold = kZip64Threshold);

  /// Appends a record of `size` bytes with that CRC-32; `produce` is called once and hands the content on in
  /// order.
  void add(const std::string& name, std::uint64_t size, std::uint32_t crc32,
           const std::function<void(const Sink&)>& produce);
  void add(const std::string& name, std::span<const std::byte> content);
  /// Writes the central directory. Call once, last.
  void finish();

  /// Bytes handed to the sink so far, and their CRC-32C.
  [[nodiscard]] std::uint64_t position() const { return position_; }
  [[nodiscard]] std::uint32_t crc32c() const { return crc32c_; }

 private:
  void emit(std::span<const std::byte> bytes);

  Sink sink_;
  std::uint64_t zip64_threshold_;
  std::vector<ZipEntry> entries_;
  std::uint64_t position_ = 0;
  std::uint32_t crc32c_ = 0;
};

/// The local header that ZipWriter writes for a record at entry.header_offset, and the central directory and
/// end records it writes for `entries`: what a file of ours must hold there, byte for byte.
[[nodiscard]] std::string zip_local_header(const ZipEntry& entry,
                                           std::uint64_t zip64_threshold = ZipWriter::kZip64Threshold);
[[nodiscard]] std::string zip_directory(std::span<const ZipEntry> entries, std::uint64_t directory_offset,
                                        std::uint64_t zip64_threshold = ZipWriter::kZip64Threshold);

}  // namespace voca::engine
