#pragma once

#include <algorithm>
#include <chrono>

namespace voca::engine {

/// A clock that stands still while this process is stopped (SIGSTOP, Ctrl-Z, a job that its scheduler has
/// suspended), for time-outs that must not run out then: nobody could have answered. To be asked at least
/// twice a second while a time-out runs, by one thread at a time.
class RunningClock {
 public:
  using Time = std::chrono::steady_clock::time_point;
  /// Of the time between two questions, no more than this counts.
  static constexpr std::chrono::seconds kMaxStep{1};

  explicit RunningClock(Time begin = std::chrono::steady_clock::now()) : asked_(begin), now_(begin) {}

  /// Of use only beside other answers of the same clock.
  [[nodiscard]] Time now() { return at(std::chrono::steady_clock::now()); }
  /// The same, asked at `time` of the steady clock, which must not decrease.
  [[nodiscard]] Time at(Time time) {
    now_ += std::min<Time::duration>(time - asked_, kMaxStep);
    asked_ = time;
    return now_;
  }

 private:
  Time asked_;
  Time now_;
};

}  // namespace voca::engine
