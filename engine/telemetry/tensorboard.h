#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "engine/base/unique_fd.h"

namespace voca::engine {

/// Writes scalars for TensorBoard: a file events.out.tfevents.<seconds>.<host>.<pid>.<count> of framed
/// records (TFRecord: length, masked CRC-32C of the length, payload, masked CRC-32C of the payload), each a
/// protobuf message tensorflow.Event. Every writer has a file of its own; TensorBoard merges the files of a
/// folder. Writes are unbuffered; failures throw IoError naming the file.
class TensorBoardWriter {
 public:
  /// Wall-clock seconds since 1970.
  using Clock = std::function<double()>;
  /// Creates the file in `folder`, which must exist. A null clock means the system's.
  explicit TensorBoardWriter(const std::filesystem::path& folder, Clock clock = {});

  struct Scalar {
    std::string tag;   ///< "train/loss"; '/' separates groups
    double value = 0;  ///< stored as float; NaN and infinities are kept
  };
  /// Writes one event; a no-op without scalars.
  void write(std::int64_t step, std::span<const Scalar> scalars);
  /// Writes a line of metrics.jsonl: every number except `epoch` and `step` as "<kind>/<name>", numbers of a
  /// nested object as "<kind>/<name>/<inner>"; arrays, strings, booleans and nulls are skipped.
  void write(const nlohmann::ordered_json& line);
  /// Makes TensorBoard discard events of earlier files from `step` on, which a resumed run writes again.
  void forget_from(std::int64_t step);

  /// Syncs the events written so far to disk.
  void sync();

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  void write_event(const std::string& event);

  Clock clock_;
  std::filesystem::path path_;
  UniqueFd descriptor_;
};

}  // namespace voca::engine
