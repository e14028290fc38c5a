#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/tree/npy.h"
#include "engine/archive/zip_archive.h"

namespace voca::data {

using engine::ReadError;

/// Reads named arrays from an .npz (a zip archive of .npy files, stored or deflated), as written by np.savez
/// and np.savez_compressed. Only requested arrays are read; duplicate names are rejected. Memory: the
/// declared size of an array, after a check against what the file can hold (deflate expands by at most 1032),
/// plus a buffer of compressed bytes.
class NpzReader {
 public:
  /// Reads the archive's directory. All methods throw ArrayError naming the file for faults of the file, and
  /// ReadError for system errors.
  explicit NpzReader(const std::filesystem::path& path);

  [[nodiscard]] bool has(const std::string& key) const;
  /// Names of the arrays, in the archive's order.
  [[nodiscard]] std::vector<std::string> keys() const;
  /// Reads only the header and checks its size against the archive's directory.
  [[nodiscard]] NpyHeader header(const std::string& key) const;
  /// Reads the whole array and checks its CRC-32.
  [[nodiscard]] Array read(const std::string& key) const;

 private:
  [[nodiscard]] const engine::ZipEntry& find(const std::string& key) const;
  /// File and array, for messages.
  [[nodiscard]] std::string where(const std::string& key) const;

  engine::ZipReader zip_;
};

/// An array to write; `bytes` are little-endian in C order.
struct NamedArray {
  std::string name;
  engine::DType dtype = engine::DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Writes an .npz that np.load can read; equal arrays give equal bytes. The folder must exist. Throws
/// IoError.
void write_npz(const std::filesystem::path& path, std::span<const NamedArray> arrays, bool compressed);

}  // namespace voca::data
