#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/packed/hdf5.h"
#include "data/packed/hdf5_file.h"
#include "data/packed/split.h"
#include "engine/base/unique_fd.h"
#include "engine/core/dtype.h"

// Packed dataset: HDF5, format version 1 (docs/data.md). Internal to data/.

namespace voca::data {

inline constexpr const char* kFormatName = "voca-features";
inline constexpr std::int64_t kFormatVersion = 1;
inline constexpr hsize_t kAlignment = 4096;

/// Contents of a packed file except its frames; N samples.
struct PackedIndex {
  engine::DType dtype = engine::DType::kF32;
  std::array<std::int64_t, 2> dims{};                  ///< by Stream
  std::array<std::vector<std::int64_t>, 2> offsets{};  ///< (N + 1) by Stream
  std::vector<std::uint8_t> labels;
  std::vector<std::string> ids;
  std::vector<std::uint8_t> splits;
  std::vector<std::int32_t> groups;
  std::vector<std::uint32_t> checksums;
  std::vector<std::uint8_t> frame_labels;  ///< empty if not stored
};

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

/// Writes a packed file in three steps: the constructor reserves space for the frames, the caller writes them
/// at frames_at() (with pwrite, from any thread), and finish() writes the rest. Throws IoError with `name`,
/// the file's name for messages.
class PackedFileWriter {
 public:
  PackedFileWriter(const std::filesystem::path& path, std::string name, engine::DType dtype,
                   const std::array<std::int64_t, 2>& rows, const std::array<std::int64_t, 2>& dims);
  ~PackedFileWriter();
  PackedFileWriter(const PackedFileWriter&) = delete;
  PackedFileWriter& operator=(const PackedFileWriter&) = delete;

  /// File offset of the stream's first frame.
  [[nodiscard]] std::uint64_t frames_at(Stream stream) const;
  void finish(const PackedIndex& index, const PackedAttributes& attributes);

 private:
  void write_vector(const char* name, hid_t file_type, hid_t memory_type, std::size_t count,
                    const void* data);
  void write_strings(const char* name, const std::vector<std::string>& strings);
  void write_attribute(const char* name, const std::string& text);
  void write_attribute(const char* name, hid_t file_type, hid_t memory_type, std::size_t count,
                       const void* data);
  /// Creates the file and reserves space for the frames.
  void lay_out(const std::filesystem::path& path, engine::DType dtype,
               const std::array<std::int64_t, 2>& rows, const std::array<std::int64_t, 2>& dims);
  /// Throws IoError if any write has failed so far.
  void check_written() const;
  [[noreturn]] void fail(const char* what) const;

  std::string name_;
  engine::UniqueFd descriptor_;
  hdf5::FileAccess access_;
  hdf5::Handle file_;  // closed before access_ and descriptor_
  std::array<std::uint64_t, 2> frames_at_{};
};

}  // namespace voca::data
