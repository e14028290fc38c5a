#pragma once

#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/running_clock.h"
#include "engine/base/unique_fd.h"
#include "tools/launch/output_relay.h"
#include "tools/launch/rank_process.h"

namespace voca::tools {

/// How long ranks are waited for.
struct Patience {
  using Duration = std::chrono::steady_clock::duration;
  /// After the first failure: ranks notice by themselves that one is missing, and say which.
  Duration after_failure = std::chrono::seconds(5);
  /// Then they are sent SIGTERM, and after this SIGKILL.
  Duration after_sigterm = std::chrono::seconds(5);
  /// After a signal to the launcher: to finish the step and to save; then SIGKILL.
  Duration after_stop = std::chrono::seconds(60);
  /// When some have ended with exit code 0, ranks that hang as they end, or are stopped; then SIGKILL.
  Duration after_done = std::chrono::seconds(30);
  /// A second SIGINT kills, unless it comes so soon that it is the first one once more: timeout(1) and the
  /// like send a signal to a process and then to its group. People are slower.
  Duration of_one_keystroke = std::chrono::milliseconds(250);
};

/// While one exists, the launcher's signals (SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGCHLD) wait in a file to be
/// read rather than interrupt, and SIGPIPE is ignored. SIGHUP is left alone where it is ignored (nohup).
class LauncherSignals {
 public:
  LauncherSignals();
  ~LauncherSignals();
  LauncherSignals(const LauncherSignals&) = delete;
  LauncherSignals& operator=(const LauncherSignals&) = delete;

  [[nodiscard]] int descriptor() const { return file_.get(); }
  /// The mask from before: that of programs to start.
  [[nodiscard]] const sigset_t& mask_before() const { return before_; }
  /// One that has arrived, or 0.
  [[nodiscard]] int next();

 private:
  sigset_t before_{};
  struct sigaction pipe_before_ {};
  struct sigaction child_before_ {};
  engine::UniqueFd file_;
};

/// What became of ranks that were started together.
struct GroupEnd {
  struct Failure {
    int rank;
    pid_t pid;
    int status;        ///< of waitpid()
    std::string said;  ///< why, in its own last words; empty where it said nothing or nobody heard it
  };
  std::optional<Failure> first_failure;
  bool started = false;            ///< false: a signal to stop was there before
  bool saved_and_stopped = false;  ///< a rank ended with exit code 75
  int stop_signal = 0;             ///< that the launcher got, or 0
};

/// The ranks of one node, from their start to the end of the last one.
class RankGroup {
 public:
  /// `plain_stdout`: lines of stdout pass without a prefix.
  RankGroup(LauncherSignals& signals, OutputRelay& relay, Patience patience, bool plain_stdout)
      : signals_(signals), relay_(relay), patience_(patience), plain_stdout_(plain_stdout) {}

  /// Starts them, relays their lines, passes signals on, and returns when all have ended. One that fails
  /// brings the others down, in time. Throws IoError when one cannot be started; none runs then.
  [[nodiscard]] GroupEnd run(const std::vector<RankCommand>& commands);

 private:
  using Clock = engine::RunningClock;
  struct Output {
    int descriptor;  // −1 after its end
    OutputRelay::Stream stream;
    LineCutter cutter;
    std::string prefix{};
    std::string said{};  // the last line that tells of an error
  };
  struct Member {
    std::unique_ptr<RankProcess> process;
    std::vector<Output> outputs;
    bool ended = false;
    bool was_ended = false;  // by a signal of ours
    int status = 0;
    [[nodiscard]] std::string said() const;
  };

  void start(const RankCommand& command);
  void wait_for_something();
  void take_signals();
  void on_stop(int number);
  void relay_output(Output& output);
  void drain(Member& member);
  void pass_on(Output& output, std::string lines);
  void reap();
  void on_failure(const Member& member);
  void kill_silent();
  void find_cause();
  [[nodiscard]] const Member* member_named(const std::string& said) const;
  void keep_deadlines();
  void tell_of_a_stop();
  void watch_stragglers();
  [[nodiscard]] bool all_work_is_done() const;
  void signal_all(int number);
  void say(const std::string& text);
  [[nodiscard]] int running() const;
  [[nodiscard]] int milliseconds_to_deadline();

  LauncherSignals& signals_;
  OutputRelay& relay_;
  Patience patience_;
  bool plain_stdout_;
  engine::RunningClock clock_;
  std::vector<Member> members_;
  GroupEnd end_;
  bool all_stopped_ = false;
  std::optional<Clock::Time> term_at_;
  std::optional<Clock::Time> kill_at_;
  std::optional<Clock::Time> straggled_at_;  // when all that still run will have hung for too long
  std::optional<Clock::Time> interrupted_at_;
};

}  // namespace voca::tools
