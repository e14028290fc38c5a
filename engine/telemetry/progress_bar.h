#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace voca::engine {

struct ProgressBarOptions {
  bool quiet = false;               ///< print only warnings
  bool silent = false;              ///< print nothing: another rank does
  bool redraw = false;              ///< rewrite one line in place; otherwise print a line from time to time
  double seconds_between = 5;       ///< between lines; a redrawn line changes at most ten times per second
  std::function<int()> width{};     ///< current columns to print in; null: 80
  std::function<double()> clock{};  ///< monotonic seconds; null: the steady clock
  std::function<void(std::string_view)> write{};  ///< null: standard error
};

/// Progress display of a long task, one line:
///
///   train  epoch 3/50   42% 1260/3000  eta 0:12:34  5120 samples/s  loss 0.4321  lr 3.00e-04
///
/// Parts that do not fit the columns are dropped from the right. update() does not allocate.
class ProgressBar {
 public:
  explicit ProgressBar(ProgressBarOptions options);
  /// For standard error: redrawn if that is a capable terminal, plain lines otherwise. `silent` prints
  /// nothing; set it on all ranks except 0.
  [[nodiscard]] static ProgressBar on_stderr(bool quiet, bool silent = false);
  /// Terminates an open line.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  struct State {
    std::int64_t done = 0;
    std::int64_t total = 0;    ///< 0: unknown, then without percentage and ETA
    std::string_view phase{};  ///< e.g. "epoch 3/50"; empty omits it
    std::optional<double> samples_per_s{};
    std::optional<double> loss{};
    std::optional<double> lr{};
  };

  /// Starts a task of which `done` was already completed (a resumed run); the ETA counts from here.
  void start(std::string_view title, std::int64_t done);
  /// Reports the current state; prints it if the interval has passed.
  void update(const State& state);
  /// Prints the last state regardless of the interval and ends the line. A no-op without an update.
  void finish();
  /// Prints one or more lines of text in one write, clear of a redrawn line: processes that share a terminal
  /// or file do not interleave within a line.
  void message(std::string_view text);
  /// message() for important text, "warning: …": printed even if `quiet`.
  void warning(std::string_view text);
  /// Columns of the output.
  [[nodiscard]] int columns() const;

 private:
  /// Appends the last state as a line to the buffer.
  void draw(double now);

  ProgressBarOptions options_;
  std::string title_;
  double started_ = 0;
  std::int64_t done_at_start_ = 0;
  double printed_ = 0;
  bool line_open_ = false;
  std::optional<State> last_;
  std::string buffer_;            // output buffer, reused so that update() does not allocate
  std::array<char, 64> phase_{};  // storage of last_->phase
};

/// "0:00:05", "1:02:03", "2d 03:04:05"; seconds rounded, never negative.
[[nodiscard]] std::string format_duration(double seconds);

}  // namespace voca::engine
