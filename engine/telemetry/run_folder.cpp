#include "engine/telemetry/run_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/path_status.h"
#include "engine/base/terminal.h"

namespace voca::engine {
namespace {

using nlohmann::ordered_json;

/// Enough for a step line for each of ten million steps.
constexpr std::size_t kMaxMetricsBytes = std::size_t{4} << 30;

bool is_record(const ordered_json& line) {
  return line.is_object() && line.contains("kind") && line["kind"].is_string() && line.contains("epoch") &&
         line["epoch"].is_number_integer() && line.contains("step") && line["step"].is_number_integer();
}

/// Whether the line stays valid: the resumed run will not write it again.
bool still_holds(const ordered_json& line, std::int64_t epochs, std::int64_t step) {
  const std::string kind = line["kind"];
  if (kind == "test") return false;
  if (kind == "epoch") return line["epoch"].get<std::int64_t>() <= epochs;
  return line["step"].get<std::int64_t>() <= step;
}

}  // namespace

std::size_t visit_metrics(
    const std::filesystem::path& path,
    const std::function<void(const ordered_json& record, std::string_view line)>& visit) {
  const std::string text = read_text_file(path, kMaxMetricsBytes);
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    ++number;
    const std::size_t newline = text.find('\n', begin);
    const bool whole = newline != std::string::npos;
    const std::string_view line = std::string_view(text).substr(begin, newline - begin);
    begin += line.size() + 1;
    const auto record = parse_if_json(line, fmt::format("{}: line {}", path.string(), number));
    if (record && is_record(*record)) {
      visit(*record, line);
    } else if (whole) {
      throw DataError("{}: line {} is not a record of a training; move the file away to start another",
                      path.string(), number);
    }
  }
  return text.size();
}

RunFolder::RunFolder(std::filesystem::path path) : path_(std::move(path)) {
  make_folders(path_);
  for (const auto& file : {config_path(path_), metrics_path(path_)}) remove_stale_temporaries(file);
}

bool RunFolder::has_metrics(const std::filesystem::path& run) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(metrics_path(run), error);
  if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) return false;
  if (error) throw IoError("{}: cannot be looked at: {}", metrics_path(run).string(), error.message());
  return size > 0;
}

void RunFolder::write_config(const ordered_json& config) {
  write_file_atomically(config_path(path_), json_text(config, 2) + "\n");
}

void RunFolder::open_metrics(int flags) {
  // A new run gets a new file: a symbolic link here may point to another run's.
  if ((flags & O_TRUNC) != 0 && ::unlink(metrics_path(path_).c_str()) != 0 && errno != ENOENT)
    throw_errno(metrics_path(path_), "replace");
  metrics_.reset(
      ::open(metrics_path(path_).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags, 0666));
  if (!metrics_) throw_errno(metrics_path(path_), "open");
  sync_folder(path_);
}

void RunFolder::start_metrics() {
  open_metrics(O_TRUNC);
}

void RunFolder::resume_metrics(std::int64_t epochs, std::int64_t step) {
  if (has_metrics(path_)) {
    std::string kept;
    const std::size_t size =
        visit_metrics(metrics_path(path_), [&](const ordered_json& record, std::string_view line) {
          if (still_holds(record, epochs, step)) kept.append(line).push_back('\n');
        });
    if (kept.size() != size) write_file_atomically(metrics_path(path_), kept);
  }
  open_metrics(0);
}

void RunFolder::append(const ordered_json& line) {
  VOCA_CHECK(metrics_ && is_record(line));
  const std::string text = json_text(line) + "\n";
  if (!write_at_once(metrics_.get(), text)) throw_errno(metrics_path(path_), "write");
  if (line["kind"] != "step") sync();
}

void RunFolder::sync() {
  VOCA_CHECK(metrics_);
  if (::fdatasync(metrics_.get()) != 0) throw_errno(metrics_path(path_), "sync");
}

}  // namespace voca::engine
