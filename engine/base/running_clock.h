#pragma once

#include <algorithm>
#include <chrono>

namespace voca::engine {

/// A clock that stops while this process is stopped (SIGSTOP, Ctrl-Z, a job suspended by its scheduler), for
/// timeouts that must not expire meanwhile: no peer could have answered. Query it at least twice per second
/// while a timeout runs, from one thread at a time.
class RunningClock {
 public:
  using Time = std::chrono::steady_clock::time_point;
  /// Longest time between two queries that counts in full.
  static constexpr std::chrono::seconds kMaxStep{1};

  explicit RunningClock(Time begin = std::chrono::steady_clock::now()) : asked_(begin), now_(begin) {}

  /// Meaningful only relative to other readings of this clock.
  [[nodiscard]] Time now() { return at(std::chrono::steady_clock::now()); }
  /// now() at steady-clock `time`, which must not decrease.
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
