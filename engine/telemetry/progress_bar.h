#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace voca::engine {

struct ProgressBarOptions {
  bool quiet = false;               ///< print warnings alone
  bool silent = false;              ///< print nothing at all: another rank does
  bool redraw = false;              ///< rewrite one line in place; else a line now and then
  double seconds_between = 5;       ///< between lines; a redrawn line changes ten times a second at most
  std::function<int()> width{};     ///< columns to print in now; null: 80
  std::function<double()> clock{};  ///< seconds, never running backwards; null: the steady clock
  std::function<void(std::string_view)> write{};  ///< null: standard error
};

/// The line that says how far a long piece of work is:
///
///   train  epoch 3/50   42% 1260/3000  eta 0:12:34  5120 samples/s  loss 0.4321  lr 3.00e-04
///
/// What does not fit the columns is left out from the right. update() does not allocate.
class ProgressBar {
 public:
  explicit ProgressBar(ProgressBarOptions options);
  /// On standard error: redrawn where that is a terminal that can, plain lines otherwise.
  /// With `silent` nothing is printed, which is for all ranks but the first.
  [[nodiscard]] static ProgressBar on_stderr(bool quiet, bool silent = false);
  /// Ends an open line.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  struct State {
    std::int64_t done = 0;
    std::int64_t total = 0;    ///< 0: unknown; no per cent and no ETA then
    std::string_view phase{};  ///< e.g. "epoch 3/50"; empty leaves it out
    std::optional<double> samples_per_s{};
    std::optional<double> loss{};
    std::optional<double> lr{};
  };

  /// Begins a piece of work of which `done` was there before (a resumed run): the ETA counts from here.
  void start(std::string_view title, std::int64_t done);
  /// Says where it is; prints when it is time to.
  void update(const State& state);
  /// Prints the last state in full, whatever the time, and ends the line. Nothing when nothing was updated.
  void finish();
  /// Prints a line of text, or several, clear of a redrawn line and in one piece: processes that share a
  /// terminal or a file do not break into each other's lines.
  void message(std::string_view text);
  /// The same for what must be known, "warning: …": printed though progress is not wanted.
  void warning(std::string_view text);
  /// Columns of where it prints.
  [[nodiscard]] int columns() const;

 private:
  void print(const State& state, double now);
  /// Appends what print() writes.
  void draw(const State& state, double now, std::string& out);

  ProgressBarOptions options_;
  std::string title_;
  double started_ = 0;
  std::int64_t done_at_start_ = 0;
  double printed_ = 0;
  bool line_open_ = false;
  std::optional<State> last_;
  std::string buffer_;            // what is written next, so that update() does not allocate
  std::array<char, 64> phase_{};  // what last_->phase points to
};

/// "0:00:05", "1:02:03", "2d 03:04:05"; seconds rounded, never negative.
[[nodiscard]] std::string format_duration(double seconds);

}  // namespace voca::engine
