#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

namespace voca::engine {

/// Writes scalars as TensorBoard reads them: a file events.out.tfevents.<seconds>.<host>.<pid>.<count> of
/// framed records (TFRecord: length, masked CRC-32C of it, payload, masked CRC-32C of that), each a protobuf
/// message tensorflow.Event. A process writes a file of its own; TensorBoard joins those of a folder.
/// Everything is handed to the system at once; failures throw IoError naming the file.
class TensorBoardWriter {
 public:
  /// Wall time in seconds since 1970.
  using Clock = std::function<double()>;
  /// Creates the file in `folder`, which exists. A null clock is the system's.
  explicit TensorBoardWriter(const std::filesystem::path& folder, Clock clock = {});
  ~TensorBoardWriter();
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  TensorBoardWriter& operator=(const TensorBoardWriter&) = delete;

  struct Scalar {
    std::string tag;   ///< "train/loss"; '/' groups
    double value = 0;  ///< kept as a float; NaN and infinities are shown as such
  };
  /// One event. No scalars, no event.
  void write(std::int64_t step, std::span<const Scalar> scalars);
  /// A line of metrics.jsonl: every number but `epoch` and `step` under "<kind>/<name>", those of a nested
  /// object under "<kind>/<name>/<inner>"; arrays, texts, flags and nulls are left out.
  void write(const nlohmann::ordered_json& line);
  /// Tells TensorBoard to forget events of earlier files from `step` on: a resumed run writes them again.
  void forget_from(std::int64_t step);

  /// Brings the events written so far to the disk.
  void sync();

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  void write_event(const std::string& event);

  Clock clock_;
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace voca::engine
