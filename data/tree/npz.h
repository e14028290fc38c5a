#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/tree/npy.h"

namespace voca::data {

/// System error while a file was opened or read; it says nothing about the file's contents.
class ReadError : public engine::IoError {
 public:
  ReadError(int error_number, const std::string& message)
      : engine::IoError("{}", message), error_number_(error_number) {}
  /// errno of the failure.
  [[nodiscard]] int error_number() const noexcept { return error_number_; }

 private:
  int error_number_;
};

/// Reads named arrays from an .npz (a zip archive of .npy files, stored or deflated), as written by np.savez
/// and np.savez_compressed. Only requested arrays are read; duplicate names are rejected. Memory: the
/// declared size of an array, after a check against what the file can hold (deflate expands by at most 1032),
/// plus the compressed bytes. One thread at a time.
class NpzReader {
 public:
  /// Reads the archive's directory. All methods throw ArrayError naming the file for faults of the file, and
  /// ReadError for system errors.
  explicit NpzReader(const std::filesystem::path& path);
  ~NpzReader();
  NpzReader(const NpzReader&) = delete;
  NpzReader& operator=(const NpzReader&) = delete;

  [[nodiscard]] bool has(const std::string& key) const;
  /// Names of the arrays, in the archive's order.
  [[nodiscard]] std::vector<std::string> keys() const;
  /// Reads only the header and checks its size against the archive's directory.
  [[nodiscard]] NpyHeader header(const std::string& key) const;
  /// Reads the whole array and checks its CRC-32.
  [[nodiscard]] Array read(const std::string& key) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
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
