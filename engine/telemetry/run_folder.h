#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "engine/base/unique_fd.h"

namespace voca::engine {

/// The folder with the records of a training (--run_dir): config.json and metrics.jsonl. Only one process may
/// write to it. Every system failure throws IoError naming the file.
class RunFolder {
 public:
  /// Creates the folder and its parents if missing; removes temporary files of its records that a killed run
  /// left.
  explicit RunFolder(std::filesystem::path path);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] static std::filesystem::path config_path(const std::filesystem::path& run) {
    return run / "config.json";
  }
  [[nodiscard]] static std::filesystem::path metrics_path(const std::filesystem::path& run) {
    return run / "metrics.jsonl";
  }
  /// Folder of resume states; created by their writer.
  [[nodiscard]] static std::filesystem::path checkpoint_folder(const std::filesystem::path& run) {
    return run / "checkpoints";
  }
  /// Whether metrics.jsonl has lines of an earlier run. Throws IoError if the file system cannot tell.
  [[nodiscard]] static bool has_metrics(const std::filesystem::path& run);

  /// Writes config.json atomically.
  void write_config(const nlohmann::ordered_json& config);

  /// Starts a new metrics.jsonl, discarding that of an earlier run.
  void start_metrics();
  /// Continues metrics.jsonl for a run that resumes after `epochs` whole epochs and `step` steps. Drops the
  /// lines that will be written again: kind "step" of later steps, "epoch" of later epochs (counted from 1)
  /// and "test"; also a last line truncated by a crash. Starts empty if the file is missing. Throws DataError
  /// naming the line if another line is not a record.
  void resume_metrics(std::int64_t epochs, std::int64_t step);

  /// Writes one line; lines other than kind "step" are also synced to disk. Non-finite numbers become null.
  /// Requires start_metrics() or resume_metrics() before. `line` has `kind`, `epoch` and `step`.
  void append(const nlohmann::ordered_json& line);
  /// Syncs all lines to disk: call it before saving a state that is past them. Requires start_metrics() or
  /// resume_metrics() before.
  void sync();

 private:
  void open_metrics(int flags);

  std::filesystem::path path_;
  UniqueFd metrics_;
};

/// Calls `visit` for every line of a metrics.jsonl with its record, which has a string `kind` and integers
/// `epoch` and `step`, and its text. Skips a last line truncated by a crash. Returns the file's size in
/// bytes. Throws IoError, or DataError naming the file and the line that is not a record.
std::size_t visit_metrics(
    const std::filesystem::path& path,
    const std::function<void(const nlohmann::ordered_json& record, std::string_view line)>& visit);

}  // namespace voca::engine
