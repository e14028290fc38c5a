#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/packed/dataset.h"
#include "data/packed/hdf5.h"
#include "data/packed/split.h"
#include "engine/base/atomic_file.h"
#include "engine/base/unique_fd.h"
#include "engine/core/dtype.h"

// Packed dataset: HDF5, format version 1 (docs/data.md). Internal to data/.

namespace voca::data {

inline constexpr const char* kFormatName = "voca-features";
inline constexpr std::int64_t kFormatVersion = 1;
inline constexpr hsize_t kAlignment = 4096;

/// SHA-256 over the index: type, widths, offsets, labels, ids, splits, groups, frame labels, and the
/// checksums, through which it covers the frames.
[[nodiscard]] std::string content_hash(const PackedIndex& index);

struct PackedAttributes {
  std::uint64_t split_seed = 0;
  SplitRatios split_ratios{};
  std::string group_by;
  std::string source;
  std::string created_by;
  std::string content_hash;
};

/// Writes a packed file: the constructor reserves space for the frames, write() writes them, finish() the
/// rest, and commit() puts the file into place. Throws IoError with the file's name.
class PackedFileWriter {
 public:
  /// The file `out` of `rows` frames, `dims` wide.
  PackedFileWriter(const std::filesystem::path& out, engine::DType dtype, const PerStream<std::int64_t>& rows,
                   const PerStream<std::int64_t>& dims);
  ~PackedFileWriter();
  PackedFileWriter(const PackedFileWriter&) = delete;
  PackedFileWriter& operator=(const PackedFileWriter&) = delete;

  /// Writes the frames of a stream from `row` on. May be called from any thread, as may read().
  void write(Stream stream, std::int64_t row, std::span<const std::byte> bytes);
  /// Reads `bytes` frames back.
  void read(Stream stream, std::int64_t row, std::span<std::byte> bytes) const;
  [[nodiscard]] std::size_t row_bytes(Stream stream) const { return row_bytes_[stream]; }
  void finish(const PackedIndex& index, const PackedAttributes& attributes);
  /// As engine::AtomicFile::commit().
  void commit(const std::function<void(const std::filesystem::path&)>& verify) { file_.commit(verify); }

 private:
  [[nodiscard]] off_t at(Stream stream, std::int64_t row) const;
  void write_vector(const char* name, hid_t file_type, hid_t memory_type, std::size_t count,
                    const void* data);
  void write_strings(const char* name, const std::vector<std::string>& strings);
  void write_attribute(const char* name, const std::string& text);
  void write_attribute(const char* name, hid_t file_type, hid_t memory_type, std::size_t count,
                       const void* data);
  /// Creates the file and reserves space for the frames.
  void lay_out(engine::DType dtype, const PerStream<std::int64_t>& rows, const PerStream<std::int64_t>& dims);
  /// Throws IoError if any write of the library has failed so far.
  void check_written() const;
  /// Throws the error of the library's last call.
  [[noreturn]] void fail(const char* what) const;
  [[noreturn]] void fail_with(int error_number, const char* what) const;

  engine::AtomicFile file_;
  std::string name_;  ///< of the output, for messages
  engine::UniqueFd descriptor_;
  hdf5::FileAccess access_;
  hdf5::Handle hdf5_;  // closed before access_ and descriptor_
  PerStream<std::uint64_t> frames_at_{};
  PerStream<std::size_t> row_bytes_{};
};

}  // namespace voca::data
