#include "tools/log_sink.h"

#include <fmt/format.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "engine/base/terminal.h"
#include "engine/base/text.h"

namespace voca::tools {
namespace {

/// Passes each message on as "warning: …".
class LineSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  using Write = std::function<void(std::string_view)>;
  explicit LineSink(Write write) : write_(std::move(write)) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const spdlog::string_view_t level = spdlog::level::to_string_view(message.level);
    const std::string_view text(message.payload.data(), message.payload.size());
    write_(fmt::format("{}: {}", std::string_view(level.data(), level.size()),
                       engine::printable(text, text.size())));
  }
  void flush_() override {}

 private:
  Write write_;
};

std::shared_ptr<spdlog::logger> logger_through(LineSink::Write write) {
  return std::make_shared<spdlog::logger>("voca-engine", std::make_shared<LineSink>(std::move(write)));
}

}  // namespace

std::shared_ptr<spdlog::logger> stderr_logger() {
  return logger_through(
      [](std::string_view line) { engine::write_at_once(STDERR_FILENO, std::string(line) + '\n'); });
}

LogThrough::LogThrough(engine::ProgressBar& progress) : before_(spdlog::default_logger()) {
  spdlog::set_default_logger(logger_through([&progress](std::string_view line) { progress.warning(line); }));
}

LogThrough::~LogThrough() {
  spdlog::set_default_logger(std::move(before_));
}

}  // namespace voca::tools
