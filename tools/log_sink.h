#pragma once

#include <memory>

#include "engine/telemetry/progress_bar.h"

namespace spdlog {
class logger;
}

namespace voca::tools {

/// A logger that writes one line per message to stderr, escaped by engine::printable().
[[nodiscard]] std::shared_ptr<spdlog::logger> stderr_logger();

/// Routes the log of the engine through `progress` during its lifetime, so that messages do not mix with the
/// redrawn line. Warnings come from the thread that draws it.
class LogThrough {
 public:
  explicit LogThrough(engine::ProgressBar& progress);
  ~LogThrough();
  LogThrough(const LogThrough&) = delete;
  LogThrough& operator=(const LogThrough&) = delete;

 private:
  std::shared_ptr<spdlog::logger> before_;
};

}  // namespace voca::tools
