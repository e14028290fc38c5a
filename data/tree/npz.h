#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/tree/npy.h"

namespace voca::data {

/// The system failed while a file was opened or read: this says nothing about what is in it.
class ReadError : public engine::IoError {
 public:
  ReadError(int error_number, const std::string& message)
      : engine::IoError("{}", message), error_number_(error_number) {}
  /// errno's value.
  [[nodiscard]] int error_number() const noexcept { return error_number_; }

 private:
  int error_number_;
};

/// Arrays by name from an .npz (a zip archive of .npy files, stored or deflated), as np.savez and
/// np.savez_compressed write them. Only arrays that are asked for are read; one that is there twice
/// is refused. Memory: what an array declares,
/// after its declaration was checked against what the file can hold (deflate expands by at most 1032), plus
/// the compressed bytes. One thread at a time.
class NpzReader {
 public:
  /// Reads the archive's directory. Throws ArrayError naming the file, here and below, for what the file is,
  /// and ReadError for what the system does not do.
  explicit NpzReader(const std::filesystem::path& path);
  ~NpzReader();
  NpzReader(const NpzReader&) = delete;
  NpzReader& operator=(const NpzReader&) = delete;

  [[nodiscard]] bool has(const std::string& key) const;
  /// Names of the arrays, in the archive's order.
  [[nodiscard]] std::vector<std::string> keys() const;
  /// The header alone, its size checked against the archive's directory.
  [[nodiscard]] NpyHeader header(const std::string& key) const;
  /// The whole array, its CRC-32 checked.
  [[nodiscard]] Array read(const std::string& key) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// One array to write; `bytes` are little-endian in C order.
struct NamedArray {
  std::string name;
  engine::DType dtype = engine::DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Writes an .npz that np.load reads; equal arrays give equal bytes. The folder must exist. Throws IoError.
void write_npz(const std::filesystem::path& path, std::span<const NamedArray> arrays, bool compressed);

}  // namespace voca::data
