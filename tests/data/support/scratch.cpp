#include "tests/data/support/scratch.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "data/tree/convert.h"
#include "data/tree/npz.h"

namespace voca::data::testing {
namespace fs = std::filesystem;

Scratch::Scratch() {
  std::string name = (fs::temp_directory_path() / "voca-data-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = name;
}

Scratch::~Scratch() {
  std::error_code error;
  fs::remove_all(path_, error);
}

fs::path golden(const std::string& name) {
  return fs::path(VOCA_GOLDEN_DIR) / "data" / name;
}

std::vector<std::byte> read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path.string());
  const std::vector<char> chars{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const auto bytes = std::as_bytes(std::span(chars));
  return {bytes.begin(), bytes.end()};
}

void write_bytes(const fs::path& path, std::span<const std::byte> bytes) {
  // Written over and cut, never emptied first: ext4 flushes to the disk what was emptied and written again.
  if (!fs::exists(path)) std::ofstream(path, std::ios::binary);
  std::ofstream file(path, std::ios::binary | std::ios::in);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path.string());
  if (fs::file_size(path) != bytes.size()) fs::resize_file(path, bytes.size());
}

namespace {

std::vector<double> values(std::int64_t rows, std::int64_t dim, double first) {
  std::vector<double> result;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < dim; ++j)
      result.push_back(first + static_cast<double>(i) + static_cast<double>(j) / 16.0);
  }
  return result;
}

std::vector<std::byte> as_type(const std::vector<double>& numbers, engine::DType dtype) {
  const auto raw = std::as_bytes(std::span(numbers));
  if (dtype == engine::DType::kF64) return {raw.begin(), raw.end()};
  std::vector<std::byte> bytes(numbers.size() * engine::size_of(dtype));
  narrow(engine::DType::kF64, raw.data(), static_cast<std::int64_t>(numbers.size()), dtype, bytes.data());
  return bytes;
}

}  // namespace

void write_stream(const fs::path& folder, const std::string& stream, std::int64_t rows, std::int64_t dim,
                  double first, engine::DType dtype, bool compressed) {
  fs::create_directories(folder);
  const std::vector<std::byte> bytes = as_type(values(rows, dim, first), dtype);
  const std::vector<NamedArray> arrays{{"embeddings", dtype, {rows, dim}, bytes}};
  write_npz(folder / (stream + "_embeddings.npz"), arrays, compressed);
}

void write_video(const fs::path& folder, std::int64_t visual_rows, std::int64_t audio_rows, double first,
                 engine::DType dtype) {
  write_stream(folder, "visual", visual_rows, 6, first, dtype);
  write_stream(folder, "audio", audio_rows, 4, first + 0.5, dtype);
}

void write_labelled(const fs::path& folder, std::int64_t rows, double first,
                    std::span<const std::int32_t> frame_labels) {
  write_video(folder, rows, rows, first);
  const std::vector<std::byte> bytes = as_type(values(rows, 6, first), engine::DType::kF32);
  const std::vector<NamedArray> arrays{{"embeddings", engine::DType::kF32, {rows, 6}, bytes},
                                       {"frame_labels",
                                        engine::DType::kI32,
                                        {static_cast<std::int64_t>(frame_labels.size())},
                                        std::as_bytes(frame_labels)}};
  write_npz(folder / "visual_embeddings.npz", arrays, false);
}

}  // namespace voca::data::testing
