#pragma once

#include <memory>

#include "engine/telemetry/progress_bar.h"

namespace spdlog {
class logger;
}

namespace voca::tools {

/// A logger that writes to standard error a line a message, what is no text in it spelled out.
[[nodiscard]] std::shared_ptr<spdlog::logger> stderr_logger();

/// While one lives, what the engine logs goes through `progress`, clear of its redrawn line. Warnings come
/// from the thread that draws it.
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
