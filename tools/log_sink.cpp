#include "tools/log_sink.h"

#include <fmt/format.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>

#include <mutex>
#include <string>
#include <utility>

namespace voca::tools {
namespace {

class ProgressSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit ProgressSink(engine::Progress& progress) : progress_(progress) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    const spdlog::string_view_t level = spdlog::level::to_string_view(message.level);
    progress_.warning(fmt::format("{}: {}", std::string_view(level.data(), level.size()),
                                  std::string_view(message.payload.data(), message.payload.size())));
  }
  void flush_() override {}

 private:
  engine::Progress& progress_;
};

}  // namespace

LogThrough::LogThrough(engine::Progress& progress) : before_(spdlog::default_logger()) {
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("progress", std::make_shared<ProgressSink>(progress)));
}

LogThrough::~LogThrough() {
  spdlog::set_default_logger(std::move(before_));
}

}  // namespace voca::tools
