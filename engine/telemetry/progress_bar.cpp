#include "engine/telemetry/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/base/terminal.h"
#include "engine/base/text.h"

namespace voca::engine {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr std::size_t kMaxLine = 512;
constexpr std::string_view kEraseToEnd = "\x1b[K";

void write_stderr(std::string_view text) {
  write_at_once(STDERR_FILENO, text);
}

/// COLUMNS may be stale after a resize, and a redrawn line must not wrap.
int stderr_columns() {
  const int window = window_columns(STDERR_FILENO);
  const int columns = terminal_columns(STDERR_FILENO);
  return window > 0 ? std::min(window, columns) : columns;
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A line of bounded length. The first part that does not fit is dropped, with all that follow.
class Line {
 public:
  explicit Line(std::size_t limit) : limit_(std::min(limit, buffer_.size())) {}

  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    if (full_) return;
    const std::size_t gap = size_ == 0 ? 0 : 2;
    const std::size_t begin = std::min(size_ + gap, limit_);
    const std::size_t room = limit_ - begin;
    const auto result = fmt::format_to_n(buffer_.data() + begin, room, format, std::forward<Args>(args)...);
    if (result.size > room) {
      full_ = true;
      return;
    }
    std::fill(buffer_.data() + size_, buffer_.data() + begin, ' ');
    size_ = begin + result.size;
  }
  [[nodiscard]] std::string_view text() const { return {buffer_.data(), size_}; }

 private:
  std::array<char, kMaxLine> buffer_{};
  std::size_t limit_;
  std::size_t size_ = 0;
  bool full_ = false;
};

using DurationBuffer = std::array<char, 40>;

/// format_duration() without an allocation.
std::string_view duration_text(double seconds, DurationBuffer& buffer) {
  // Bounded, so that the conversion is defined for any ETA.
  const auto whole = static_cast<long long>(std::round(std::clamp(seconds, 0.0, 1e12)));
  char* out = buffer.data();
  out = whole >= 86400 ? fmt::format_to(out, "{}d {:02}", whole / 86400, whole / 3600 % 24)
                       : fmt::format_to(out, "{}", whole / 3600);
  out = fmt::format_to(out, ":{:02}:{:02}", whole / 60 % 60, whole % 60);
  return {buffer.data(), out};
}

}  // namespace

std::string format_duration(double seconds) {
  DurationBuffer buffer;
  return std::string(duration_text(seconds, buffer));
}

ProgressBar::ProgressBar(ProgressBarOptions options) : options_(std::move(options)) {
  if (!options_.width) options_.width = [] { return kDefaultColumns; };
  if (!options_.clock) options_.clock = steady_seconds;
  if (!options_.write) options_.write = write_stderr;
  buffer_.reserve(kMaxLine + 8);
  start({}, 0);
}

ProgressBar ProgressBar::on_stderr(bool quiet, bool silent) {
  const char* terminal = std::getenv("TERM");
  const bool can_redraw =
      ::isatty(STDERR_FILENO) == 1 && terminal != nullptr && std::strcmp(terminal, "dumb") != 0;
  return ProgressBar({.quiet = quiet || silent,
                      .silent = silent,
                      .redraw = can_redraw,
                      .width = stderr_columns,
                      .clock = {},
                      .write = {}});
}

ProgressBar::~ProgressBar() {
  try {
    if (line_open_) options_.write("\n");
  } catch (...) {  // a lost newline is not worth an abort
  }
}

void ProgressBar::start(std::string_view title, std::int64_t done) {
  if (line_open_) finish();
  title_ = title;
  started_ = options_.clock();
  printed_ = started_;
  done_at_start_ = done;
  last_.reset();
}

void ProgressBar::update(const State& state) {
  if (options_.quiet) return;
  const bool first = !last_.has_value();
  const std::size_t length = std::min(state.phase.size(), phase_.size());
  std::copy_n(state.phase.begin(), length, phase_.begin());
  last_ = state;
  last_->phase = {phase_.data(), length};
  const double now = options_.clock();
  const double wait = options_.redraw ? kRedrawSeconds : options_.seconds_between;
  if (!(options_.redraw && first) && now - printed_ < wait) return;
  buffer_.clear();
  draw(now);
  options_.write(buffer_);
}

void ProgressBar::finish() {
  if (last_) {
    buffer_.clear();
    draw(options_.clock());
    if (line_open_) buffer_ += '\n';
    options_.write(buffer_);
  }
  line_open_ = false;
  last_.reset();
}

int ProgressBar::columns() const {
  return options_.width();
}

void ProgressBar::message(std::string_view text) {
  if (!options_.quiet) warning(text);
}

void ProgressBar::warning(std::string_view text) {
  if (options_.silent) return;
  buffer_.clear();
  if (line_open_) fmt::format_to(std::back_inserter(buffer_), "\r{}", kEraseToEnd);
  line_open_ = false;
  buffer_ += printable_lines(text);
  buffer_ += '\n';
  if (options_.redraw && last_) draw(options_.clock());
  options_.write(buffer_);
}

void ProgressBar::draw(double now) {
  const State& state = *last_;
  // The last column stays free: some terminals wrap after writing to it.
  const int columns = std::max(options_.width(), 2) - (options_.redraw ? 1 : 0);
  Line line(static_cast<std::size_t>(columns));
  if (!title_.empty()) line.add("{}", title_);
  if (!state.phase.empty()) line.add("{}", state.phase);
  if (state.total > 0) {
    const double share = static_cast<double>(state.done) / static_cast<double>(state.total);
    line.add("{:3.0f}% {}/{}", std::floor(100 * share), state.done, state.total);
    const std::int64_t here = state.done - done_at_start_;
    DurationBuffer buffer;
    if (state.done >= state.total) {
      line.add("took {}", duration_text(now - started_, buffer));
    } else if (here > 0 && now > started_) {
      const double per_unit = (now - started_) / static_cast<double>(here);
      line.add("eta {}", duration_text(static_cast<double>(state.total - state.done) * per_unit, buffer));
    }
  } else {
    line.add("{}", state.done);
  }
  if (state.samples_per_s)
    line.add("{:.{}f} samples/s", *state.samples_per_s, *state.samples_per_s < 10 ? 1 : 0);
  if (state.loss) line.add("loss {:.4f}", *state.loss);
  if (state.lr) line.add("lr {:.2e}", *state.lr);

  if (options_.redraw) buffer_ += '\r';
  buffer_ += line.text();
  buffer_ += options_.redraw ? kEraseToEnd : "\n";
  line_open_ = options_.redraw;
  printed_ = now;
}

}  // namespace voca::engine
