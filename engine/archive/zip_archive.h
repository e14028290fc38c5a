#pragma once

// The zip format of .pt and .npz files. libzip does not expose the offsets of stored data, which pread and
// the overlap check need, so the directory is parsed here; isa-l inflates. Format: PKWARE APPNOTE 6.3.9.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/file_reader.h"

namespace voca::engine {

/// A record, as listed in the central directory.
struct ZipEntry {
  std::string name;
  std::uint64_t size = 0;         ///< size of the content in bytes
  std::uint64_t stored_size = 0;  ///< size in the file in bytes
  std::uint64_t header_offset = 0;
  std::uint64_t data_offset = 0;
  std::uint32_t crc32 = 0;
  bool deflated = false;
};

/// A zip file open for reading. Sizes are taken only from the central directory; local headers must agree
/// with it on name and method. Throws DataError naming the file for encryption, several disks, methods other
/// than stored and deflate, duplicate names, records that overlap each other or the directory, sizes beyond
/// the file, and bytes after the end record.
class ZipReader {
 public:
  explicit ZipReader(std::filesystem::path path) : ZipReader(FileReader(std::move(path))) {}
  explicit ZipReader(FileReader file);

  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }
  [[nodiscard]] const FileReader& file() const { return file_; }
  /// Records in the order of the directory.
  [[nodiscard]] const std::vector<ZipEntry>& entries() const { return entries_; }
  [[nodiscard]] const ZipEntry* find(std::string_view name) const;
  /// Offset of the central directory.
  [[nodiscard]] std::uint64_t directory_offset() const { return directory_offset_; }

  /// Reads the whole content and verifies its CRC-32. Throws DataError when it is larger than `max_bytes`.
  [[nodiscard]] std::vector<std::byte> read(const ZipEntry& entry, std::uint64_t max_bytes) const;
  /// Reads the whole content; throws DataError naming file and record when its CRC-32 differs.
  void verify(const ZipEntry& entry) const;

 private:
  void locate_data(ZipEntry& entry) const;
  void check_overlaps() const;

  FileReader file_;
  std::vector<ZipEntry> entries_;
  std::unordered_map<std::string, std::size_t> index_;
  std::uint64_t directory_offset_ = 0;
};

/// A record's content is not what was written.
class ZipChecksumError : public DataError {
  using DataError::DataError;
};

/// The content of one record, read in order; computes its CRC-32 on the way. Throws DataError naming file and
/// record when the record is damaged. Memory: a deflated record takes a buffer of 256 KB and the inflater.
class ZipStream {
 public:
  /// `zip` and `entry`, which is one of its entries, must outlive the stream.
  ZipStream(const ZipReader& zip, const ZipEntry& entry);
  ~ZipStream();
  ZipStream(const ZipStream&) = delete;
  ZipStream& operator=(const ZipStream&) = delete;

  /// Overwrites `out` with the next bytes.
  void read(std::span<std::byte> out);
  /// Checks after the last byte that the content ends; throws ZipChecksumError when its CRC-32 differs.
  void finish();

 private:
  struct Inflater;
  std::size_t inflate(std::span<std::byte> out);
  [[noreturn]] void damaged() const;

  const ZipReader& zip_;
  const ZipEntry& entry_;
  std::uint64_t position_ = 0;  ///< bytes taken from the file
  std::uint32_t crc_ = 0;
  std::unique_ptr<Inflater> inflater_;  ///< null for a stored record
};

/// Writes a zip file of stored records in the layout of torch.save: content on 64-byte boundaries (padded
/// with an extra field "FB"), no data descriptors, ZIP64 fields where a number needs them. Dates are fixed,
/// so that the same records give the same bytes.
class ZipWriter {
 public:
  using Sink = std::function<void(std::span<const std::byte>)>;
  static constexpr std::uint64_t kZip64Threshold = 0xFFFFFFFFU;

  /// `sink` receives the file's bytes in order. Sizes and offsets of at least `zip64_threshold` are written
  /// as ZIP64; tests lower it.
  explicit ZipWriter(Sink sink, std::uint64_t zip64_threshold = kZip64Threshold);

  /// Appends a record of `size` bytes with the given CRC-32; `produce` is called once and must pass the
  /// content to its sink in order.
  void add(const std::string& name, std::uint64_t size, std::uint32_t crc32,
           const std::function<void(const Sink&)>& produce);
  void add(const std::string& name, std::span<const std::byte> content);
  /// Writes the central directory. Call it once, at the end.
  void finish();

  /// Number of bytes passed to the sink so far, and their CRC-32C.
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

/// Local header that ZipWriter writes for a record at entry.header_offset, and the central directory and end
/// records that it writes for `entries`. Files of this engine must match them byte for byte.
[[nodiscard]] std::string zip_local_header(const ZipEntry& entry,
                                           std::uint64_t zip64_threshold = ZipWriter::kZip64Threshold);
[[nodiscard]] std::string zip_directory(std::span<const ZipEntry> entries, std::uint64_t directory_offset,
                                        std::uint64_t zip64_threshold = ZipWriter::kZip64Threshold);

}  // namespace voca::engine
