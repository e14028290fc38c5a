#pragma once

#include <csignal>

#include "engine/base/error.h"

namespace voca::engine {

/// A signal asked to stop and there is nothing to continue from: what was under way has been cleared away,
/// and the program is to end as the signal would have ended it.
class Stopped : public Error {
 public:
  Stopped(int signal, const std::string& message) : Error(ExitCode::kInterrupted, message), signal_(signal) {}
  [[nodiscard]] int signal() const noexcept { return signal_; }

 private:
  int signal_;
};

/// While one exists, SIGTERM, SIGINT, SIGUSR1 (what schedulers send before they kill) and SIGHUP (a terminal
/// that closes) no longer end the process but ask it to stop after the current step; SIGHUP stays ignored
/// where it is (nohup). SIGPIPE is ignored, so that a peer that went away is an error of a write. A second
/// SIGINT ends the process at once, as if nothing were installed. Destroyed, what was installed before is
/// back.
///
/// One within another shares its handlers and what has asked; made and destroyed on one thread. Whoever
/// starts child processes that a terminal signals as well must not pass SIGINT on to them: they would see
/// two.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The signal that asked first (SIGTERM, SIGINT, SIGUSR1, SIGHUP), or 0. From any thread.
  [[nodiscard]] int signal() const noexcept;
  /// Its name, e.g. "SIGTERM"; null while none has asked. Fits Trainer::StopReason.
  [[nodiscard]] const char* reason() const noexcept;
  /// Throws Stopped, naming `what` is under way, once one has asked. From any thread.
  void check(const char* what) const;

 private:
  static constexpr int kSignals[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGPIPE};
  bool outermost_;
  struct sigaction before_[5]{};
};

}  // namespace voca::engine
