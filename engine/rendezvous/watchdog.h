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

/// Ends the job on every rank when one is lost (killed: within seconds), silent or without progress (for the
/// comm time-out). A thread of each rank tells rank 0 twice a second what the rank is doing and how often
/// that has changed; rank 0 judges and tells all. Time in which the whole job is stopped does not count. A
/// world of one has none to be told by and is not watched.
///
/// To be made before the communicators: an exception that unwinds destroys them first, and where they hang
/// the watchdog still ends the process.
class Watchdog {
 public:
  /// Called from the watchdog's thread with one line: who was lost, where it was last. What it leaves running
  /// goes on.
  using OnFailure = std::function<void(const std::string& reason)>;
  /// Prints the line on stderr and ends the process with ExitCode::kIo, without destructors: the main thread
  /// may hang in a collective that never returns.
  static void end_process(const std::string& reason);
  /// A main thread that hears of the failure by itself has this long to end in its own way, before
  /// `on_failure`.
  static constexpr double kGraceSeconds = 1;

  /// Throws CommunicationError when rank 0 cannot be reached. `rendezvous` must outlive it.
  Watchdog(Rendezvous& rendezvous, double comm_timeout_seconds, OnFailure on_failure = end_process);
  /// Says goodbye: a rank that leaves in order is not a lost one. While an exception unwinds, the others are
  /// told that this rank failed instead.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// What the rank does now, such as a collective's name; counts as progress. Cheap: a lock that is free
  /// nearly always and a copy of at most 128 bytes. From any thread.
  void doing(const char* what);
  /// Tells the others that this rank fails, and why, so that they end with that reason; then leaves.
  void fail(const std::string& why);
  /// Says goodbye now, here and to the rendezvous (Rendezvous::leave): for a job whose ranks have agreed to
  /// end by an exception, such as Interrupted.
  void leave();
  /// Why the job has ended, as rank 0 says; waits for it until the deadline, then "". For a main thread that
  /// got an error of a collective and wants to name its cause.
  [[nodiscard]] std::string reason(Deadline deadline);

 private:
  static constexpr std::size_t kMaxDoing = 128;

  void watch();
  void report();
  /// Whether to go on watching.
  bool listen(double seconds);
  bool handle(const std::string& payload);
  void failed(const std::string& reason);
  bool is_stopping();
  void say_goodbye();
  void stop();

  Rendezvous& rendezvous_;
  double timeout_seconds_;
  OnFailure on_failure_;
  int exceptions_;
  std::unique_ptr<Channel> channel_;  // null in a world of one
  UniqueFd wake_;
  RunningClock clock_;
  Deadline heard_{};  // of rank 0, by clock_
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
