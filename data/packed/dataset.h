#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/packed/trial_run.h"
#include "data/tree/feature_tree.h"
#include "engine/base/error.h"
#include "engine/core/dtype.h"

namespace voca::data {

/// Summary of a packed file, as printed by `inspect`.
struct DatasetSummary {
  std::int64_t samples = 0;
  engine::DType dtype = engine::DType::kF32;
  PerStream<std::int64_t> dims{};
  PerStream<std::int64_t> frames{};  ///< ΣT_v, ΣT_a
  std::int64_t frames_min = 0;       ///< minimum of min(T_v, T_a)
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
  std::string content_hash;    ///< computed; equal to the file's where it has one
  bool content_known = false;  ///< whether the file has a content_hash, so that edited labels are noticed
  std::string split_hash;
};

/// Contents of a packed file except its frames; N samples.
struct PackedIndex {
  engine::DType dtype = engine::DType::kF32;
  PerStream<std::int64_t> dims{};
  PerStream<std::vector<std::int64_t>> offsets;  ///< (N + 1) each
  std::vector<std::uint8_t> labels;
  std::vector<std::string> ids;
  std::vector<std::uint8_t> splits;
  std::vector<std::int32_t> groups;
  std::vector<std::uint32_t> checksums;
  std::vector<std::uint8_t> frame_labels;  ///< empty if not stored
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

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// Number of samples.
  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(index_.ids.size()); }
  [[nodiscard]] std::int64_t dim(Stream stream) const { return index_.dims[stream]; }
  /// Type of the stored frames: kF16 or kF32.
  [[nodiscard]] engine::DType dtype() const { return index_.dtype; }
  [[nodiscard]] std::size_t row_bytes(Stream stream) const {
    return static_cast<std::size_t>(dim(stream)) * engine::size_of(dtype());
  }

  /// 1 real, 0 fake, or the class index; −1 unknown.
  [[nodiscard]] int label(std::int64_t sample) const;
  [[nodiscard]] const std::string& id(std::int64_t sample) const { return index_.ids.at(entry(sample)); }
  [[nodiscard]] Split split(std::int64_t sample) const {
    return static_cast<Split>(index_.splits.at(entry(sample)));
  }
  [[nodiscard]] std::int32_t group(std::int64_t sample) const { return index_.groups.at(entry(sample)); }
  /// T_v or T_a.
  [[nodiscard]] std::int64_t frames(Stream stream, std::int64_t sample) const;
  /// min(T_v, T_a) ≥ 1.
  [[nodiscard]] std::int64_t frames(std::int64_t sample) const;
  /// (T_v) 1 = fake frame; empty if the file has none.
  [[nodiscard]] std::span<const std::uint8_t> frame_labels(std::int64_t sample) const;

  [[nodiscard]] const std::vector<std::string>& ids() const { return index_.ids; }
  /// Indices of a split's samples, ascending.
  [[nodiscard]] std::vector<std::int64_t> samples_of(Split split) const;
  [[nodiscard]] const DatasetSummary& summary() const { return summary_; }
  [[nodiscard]] const std::string& content_hash() const { return summary_.content_hash; }
  [[nodiscard]] const std::string& split_hash() const { return summary_.split_hash; }

  /// Copies rows [first, first + count) of one sample's stream, as stored, into count × row_bytes(stream)
  /// bytes. Throws IoError naming the file.
  void read_raw(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count,
                std::byte* out) const;
  /// Rows as (count, dim) numbers of type kF32 or kF64, converted in place in `out`.
  void read_rows(Stream stream, std::int64_t sample, std::int64_t first, std::int64_t count,
                 engine::DType dtype, void* out) const;

  /// Whether the file contains checksums.
  [[nodiscard]] bool has_checksums() const { return !index_.checksums.empty(); }
  /// CRC32C of the sample's visual rows followed by its audio rows, as written.
  [[nodiscard]] std::uint32_t checksum(std::int64_t sample) const {
    return index_.checksums.at(entry(sample));
  }
  /// Reads the sample's frames through `scratch` (at least one row of each stream). Returns whether they are
  /// usable (FrameCheck).
  [[nodiscard]] bool verify(std::int64_t sample, std::span<std::byte> scratch) const;
  /// Samples with unusable frames, ascending; checked with `num_workers` threads.
  [[nodiscard]] std::vector<std::int64_t> verify_all(int num_workers) const;

 private:
  struct File;
  [[nodiscard]] static std::size_t entry(std::int64_t sample) { return static_cast<std::size_t>(sample); }

  void open_file();
  /// `texts`: of the trial run, or its TrialReport.
  template <typename Texts>
  void read_all_but_frames(const Texts& texts);
  void load_header();
  void load_index();
  void open_frames(Stream stream);
  /// Sample that a visual frame belongs to, according to the offsets.
  [[nodiscard]] std::size_t sample_at(std::size_t frame) const;
  void check_index() const;
  void check_offsets(Stream stream) const;
  void summarise();
  void read_through_library(Stream stream, std::int64_t row, std::int64_t count, std::byte* out) const;
  /// Throws DataError beginning with the path.
  template <typename... Args>
  [[noreturn]] void bad(fmt::format_string<Args...> format, Args&&... args) const {
    throw engine::DataError("{}: {}", path_.string(), fmt::format(format, std::forward<Args>(args)...));
  }

  std::filesystem::path path_;
  PackedIndex index_;
  DatasetSummary summary_;
  std::unique_ptr<File> file_;
};

/// Decides whether a sample's frames are usable, while they are being read. If the file has checksums, the
/// sample's must match (`pack` writes only finite numbers); otherwise every number must be finite.
class FrameCheck {
 public:
  /// `dataset` must outlive this object.
  FrameCheck(const Dataset& dataset, std::int64_t sample) : dataset_(dataset), sample_(sample) {}

  /// Adds the next rows as stored: all visual rows, then all audio rows.
  void add(std::span<const std::byte> rows);
  /// Valid once all rows have been added.
  [[nodiscard]] bool good() const;

 private:
  const Dataset& dataset_;
  std::int64_t sample_;
  std::uint32_t crc_ = 0;
  bool finite_ = true;
};

}  // namespace voca::data
