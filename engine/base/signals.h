#pragma once

#include <csignal>

#include "engine/base/error.h"

namespace voca::engine {

/// A signal requested a stop and there is no state to continue from: partial work has been removed, and the
/// program must end as the signal would have ended it.
class Stopped : public Error {
 public:
  Stopped(int signal, const std::string& message) : Error(ExitCode::kInterrupted, message), signal_(signal) {}
  [[nodiscard]] int signal() const noexcept { return signal_; }

 private:
  int signal_;
};

/// While one exists, SIGTERM, SIGINT, SIGUSR1 (sent by schedulers before they kill) and SIGHUP (the terminal
/// closed) request a stop after the current step instead of ending the process; SIGHUP stays ignored if it
/// already was (nohup). SIGPIPE is ignored, so that a write to a closed connection fails with an error. A
/// second SIGINT ends the process at once, as without handlers. The destructor restores the previous
/// handlers.
///
/// Nested objects share handlers and request; construct and destroy them on one thread. A parent of child
/// processes that receive the terminal's signals too must not forward SIGINT: they would receive it twice.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The first signal received (SIGTERM, SIGINT, SIGUSR1, SIGHUP), or 0. Thread-safe.
  [[nodiscard]] int signal() const noexcept;
  /// Its name, e.g. "SIGTERM"; null before the first. Fits Trainer::StopReason.
  [[nodiscard]] const char* reason() const noexcept;
  /// Throws Stopped, naming the interrupted `what`, if a signal was received. Thread-safe.
  void check(const char* what) const;

 private:
  static constexpr int kSignals[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGPIPE};
  bool outermost_;
  struct sigaction before_[5]{};
};

}  // namespace voca::engine
