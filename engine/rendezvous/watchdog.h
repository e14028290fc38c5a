#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "engine/base/running_clock.h"
#include "engine/base/unique_fd.h"
#include "engine/comm/key_value_store.h"
#include "engine/rendezvous/rendezvous.h"
#include "engine/rendezvous/socket.h"

namespace voca::engine {

/// Ends the job on every rank when one is lost (killed: within seconds), or silent or without progress for
/// the communication timeout. A thread of each rank reports to rank 0 twice per second what the rank is doing
/// and how often that has changed; rank 0 judges and notifies all ranks. Time in which the whole job is
/// stopped does not count. A world of one is not watched.
///
/// Create it before the communicators: an unwinding exception destroys them first, and if their destructors
/// hang, the watchdog still ends the process.
class Watchdog {
 public:
  /// Called from the watchdog's thread with one line: which rank was lost, and its last activity. If it
  /// returns, the process continues.
  using OnFailure = std::function<void(const std::string& reason)>;
  /// Prints the line on stderr and ends the process with ExitCode::kIo, without running destructors: the main
  /// thread may hang in a collective that never returns.
  static void end_process(const std::string& reason);
  /// Time that a main thread which detects the failure itself has to end on its own, before `on_failure` is
  /// called.
  static constexpr double kGraceSeconds = 1;

  /// Throws CommunicationError when rank 0 cannot be reached. `rendezvous` must outlive the watchdog.
  Watchdog(Rendezvous& rendezvous, double comm_timeout_seconds, OnFailure on_failure = end_process);
  /// Sends a goodbye, so that an orderly exit does not count as a lost rank. While an exception unwinds, the
  /// others are notified that this rank failed instead.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Sets the rank's current activity, such as a collective's name; counts as progress. Cheap: a rarely
  /// contended lock and a copy of at most 128 bytes. Callable from any thread.
  void doing(const char* what);
  /// Notifies the others that this rank fails, with the reason that they then end with, and leaves.
  void fail(const std::string& why);
  /// Sends a goodbye now, here and to the rendezvous (Rendezvous::leave): for a job whose ranks have agreed
  /// to end by an exception, such as Interrupted.
  void leave();
  /// Reason for the job's end, as reported by rank 0. Waits for it until the deadline, then returns "". For a
  /// main thread that got an error from a collective and wants to name its cause.
  [[nodiscard]] std::string reason(Deadline deadline);

 private:
  static constexpr std::size_t kMaxDoing = 128;

  void watch();
  void report();
  /// Returns whether to keep watching.
  bool listen(double seconds);
  bool handle(const std::string& payload);
  void failed(const std::string& reason);
  bool is_stopping();
  void say_goodbye();
  void leave_with(const MessageWriter& last);
  void stop();

  Rendezvous& rendezvous_;
  double timeout_seconds_;
  OnFailure on_failure_;
  int exceptions_;
  std::unique_ptr<Channel> channel_;  // null in a world of one
  UniqueFd wake_;
  RunningClock clock_;
  Deadline heard_{};  // last message of rank 0, by clock_
  std::string rank_0_at_ = "the start";

  std::mutex mutex_;
  std::condition_variable changed_;
  char doing_[kMaxDoing]{};
  std::uint64_t progress_ = 0;
  bool stopping_ = false;
  std::string reason_;
  std::thread thread_;
};

}  // namespace voca::engine
