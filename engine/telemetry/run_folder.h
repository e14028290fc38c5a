#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string_view>

namespace voca::engine {

/// The folder a training leaves its records in (--run_dir): config.json and metrics.jsonl. One process writes
/// to it. Every failure of the system is an IoError naming the file.
class RunFolder {
 public:
  /// Makes the folder, and those above it, where it is not there; removes what a killed run left half written
  /// of its records.
  explicit RunFolder(std::filesystem::path path);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path config_path() const { return config_path_of(path_); }
  [[nodiscard]] static std::filesystem::path config_path_of(const std::filesystem::path& run) {
    return run / "config.json";
  }
  [[nodiscard]] std::filesystem::path metrics_path() const { return metrics_path_of(path_); }
  [[nodiscard]] static std::filesystem::path metrics_path_of(const std::filesystem::path& run) {
    return run / "metrics.jsonl";
  }
  /// Resume states go here; made by whoever writes them.
  [[nodiscard]] std::filesystem::path checkpoint_folder() const { return checkpoint_folder_of(path_); }
  [[nodiscard]] static std::filesystem::path checkpoint_folder_of(const std::filesystem::path& run) {
    return run / "checkpoints";
  }
  /// Whether an earlier run left a line in metrics.jsonl. Throws IoError where the system does not tell.
  [[nodiscard]] bool has_metrics() const;
  [[nodiscard]] static bool has_metrics(const std::filesystem::path& run);

  /// Writes config.json, whole or not at all.
  void write_config(const nlohmann::ordered_json& config);

  /// Begins metrics.jsonl anew: what an earlier run left there is gone.
  void start_metrics();
  /// Goes on with metrics.jsonl for a run that continues after `epochs` whole epochs and `step` steps. Lines
  /// that will be written again are dropped: kind "step" of later steps, "epoch" of later epochs (they count
  /// from 1), "test". So is a last line that a crash cut short. A file that is not there begins empty. Throws
  /// DataError naming the line when another one is not a record.
  void resume_metrics(std::int64_t epochs, std::int64_t step);

  /// Appends one line and hands it to the system; lines other than kind "step" also reach the disk. Numbers
  /// that are not finite become null. Only after start_metrics or resume_metrics. `line` has `kind`, `epoch`
  /// and `step`.
  void append(const nlohmann::ordered_json& line);
  /// Brings every line appended to the disk: before a state is saved that has passed them. Only after
  /// start_metrics or resume_metrics.
  void sync();

 private:
  void open_metrics(int flags);

  std::filesystem::path path_;
  int metrics_ = -1;
};

/// Calls `visit` for every line of a metrics.jsonl with its record, which has a text `kind` and whole numbers
/// `epoch` and `step`, and the line as it stands. A last line that a crash cut short is passed over. Returns
/// the bytes of the file. Throws IoError, or DataError that names the file and the line which is no record.
std::size_t visit_metrics(
    const std::filesystem::path& path,
    const std::function<void(const nlohmann::ordered_json& record, std::string_view line)>& visit);

}  // namespace voca::engine
