#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/tree/feature_tree.h"
#include "engine/core/dtype.h"

namespace voca::data {

/// Summary of a packed file, as printed by `inspect`.
struct DatasetSummary {
  std::int64_t samples = 0;
  engine::DType dtype = engine::DType::kF32;
  std::array<std::int64_t, 2> dims{};    ///< visual, audio
  std::array<std::int64_t, 2> frames{};  ///< ΣT_v, ΣT_a
  std::int64_t frames_min = 0;           ///< minimum of min(T_v, T_a)
  std::int64_t frames_max = 0;
  std::int64_t classes = 0;  ///< 2, or the largest label + 1
  /// counts[split][label]; the last column counts samples with unknown label.
  std::array<std::vector<std::int64_t>, kSplits> counts;
  std::int64_t groups = 0;  ///< number of distinct groups
  bool frame_labels = false;
  bool checksums = false;
  bool direct = false;  ///< rows are read directly, without the HDF5 library
  std::int64_t file_bytes = 0;
  std::uint64_t split_seed = 0;
  std::vector<double> split_ratios;
  std::string group_by;
  std::string source;
  std::string created_by;
  std::string content_hash;
  std::string split_hash;
};

/// Version of the HDF5 library at run time, such as "1.10.8".
[[nodiscard]] std::string hdf5_version();

/// A packed dataset opened for reading: everything except the frames is loaded and validated. Reading is
/// thread-safe.
class Dataset {
 public:
  /// A child process opens the file first, because the HDF5 library crashes on some damaged files. Throws
  /// IoError when the file cannot be opened or read or the child cannot be started; std::bad_alloc when
  /// memory is low; DataError naming file and reason when it is not a packed dataset of version 1, is
  /// truncated, refers to other files, or is inconsistent (sizes, offsets, labels, splits, the content hash
  /// over everything except the frames).
  explicit Dataset(std::filesystem::path path);
  ~Dataset();
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const;
  [[nodiscard]] std::int64_t size() const;  ///< samples
  [[nodiscard]] std::int64_t dim(Stream stream) const;
  /// Type of the stored frames: kF16 or kF32.
  [[nodiscard]] engine::DType dtype() const;
  [[nodiscard]] std::size_t row_bytes(Stream stream) const;

  /// 1 real, 0 fake, or the class index; −1 unknown.
  [[nodiscard]] int label(std::int64_t sample) const;
  [[nodiscard]] const std::string& id(std::int64_t sample) const;
  [[nodiscard]] Split split(std::int64_t sample) const;
  [[nodiscard]] std::int32_t group(std::int64_t sample) const;
  /// T_v or T_a.
  [[nodiscard]] std::int64_t frames(Stream stream, std::int64_t sample) const;
  /// min(T_v, T_a) ≥ 1.
  [[nodiscard]] std::int64_t frames(std::int64_t sample) const;
  /// (T_v) 1 = fake frame; empty if the file has none.
  [[nodiscard]] std::span<const std::uint8_t> frame_labels(std::int64_t sample) const;

  [[nodiscard]] const std::vector<std::string>& ids() const;
  /// Indices of a split's samples, ascending.
  [[nodiscard]] std::vector<std::int64_t> samples_of(Split split) const;
  [[nodiscard]] const DatasetSummary& summary() const;
  [[nodiscard]] const std::string& content_hash() const;
  [[nodiscard]] const std::string& split_hash() const;

  /// Copies rows [first, first + count) of one sample's stream, as stored, into count × row_bytes(stream)
  /// bytes. Throws IoError naming the file.
  void read_raw(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count,
                std::byte* out) const;
  /// Rows as (count, dim) numbers of T = float or double, converted in place in `out`.
  template <typename T>
  void read_rows(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count, T* out) const;

  /// Whether the file contains checksums.
  [[nodiscard]] bool has_checksums() const;
  /// CRC32C of the sample's visual rows followed by its audio rows, as written.
  [[nodiscard]] std::uint32_t checksum(std::int64_t sample) const;
  /// Reads the sample's frames through `scratch` (at least one row of each stream). Returns whether they are
  /// usable (FrameCheck).
  [[nodiscard]] bool verify(std::int64_t sample, std::span<std::byte> scratch) const;
  /// Samples with unusable frames, ascending; checked with `num_workers` threads.
  [[nodiscard]] std::vector<std::int64_t> verify_all(int num_workers) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace voca::data
