#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/npy.h"

namespace voca::data {

/// Arrays by name from an .npz (a zip archive of .npy files, stored or deflated), as np.savez and
/// np.savez_compressed write them. Only arrays that are asked for are read; one that is there twice
/// is refused. Memory: what an array declares,
/// after its declaration was checked against what the file can hold (deflate expands by at most 1032), plus
/// the compressed bytes. One thread at a time.
class NpzReader {
 public:
  /// Reads the archive's directory. Throws ArrayError naming the file.
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
