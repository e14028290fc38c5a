#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "engine/core/dtype.h"

namespace voca::data::testing {

/// A fresh folder that goes away with this object.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

[[nodiscard]] std::filesystem::path golden(const std::string& name);
[[nodiscard]] std::vector<std::byte> read_bytes(const std::filesystem::path& path);
void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes);

/// Makes the folder and writes one stream's file: row i, column j is first + i + j / 16.
void write_stream(const std::filesystem::path& folder, const std::string& stream, std::int64_t rows,
                  std::int64_t dim, double first, engine::DType dtype = engine::DType::kF32,
                  bool compressed = false);
/// Both streams of a video: visual 6 wide, audio 4 wide, its audio values begin at first + 0.5.
void write_video(const std::filesystem::path& folder, std::int64_t visual_rows, std::int64_t audio_rows,
                 double first, engine::DType dtype = engine::DType::kF32);
/// One stream's file with frame labels beside the embeddings.
void write_labelled(const std::filesystem::path& folder, std::int64_t rows, double first,
                    std::span<const std::int32_t> frame_labels);

/// What a call threw, or "" when it did not throw a voca::engine::Error.
template <typename F>
[[nodiscard]] std::string message_of(F f) {
  try {
    f();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace voca::data::testing
