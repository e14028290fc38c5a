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

/// How long to wait for ranks.
struct GracePeriods {
  using Duration = std::chrono::steady_clock::duration;
  /// From the first failure to SIGTERM: ranks detect a missing rank by themselves, and report it.
  Duration after_failure = std::chrono::seconds(5);
  /// From SIGTERM to SIGKILL.
  Duration after_sigterm = std::chrono::seconds(5);
  /// From a signal to the launcher to SIGKILL: ranks finish the step and save.
  Duration after_stop = std::chrono::seconds(60);
  /// From the end of ranks with exit code 0 to SIGKILL of others that hang at exit, or are stopped.
  Duration after_done = std::chrono::seconds(30);
  /// A second SIGINT kills, unless it arrives within this time of the first: timeout(1) and the like signal a
  /// process and then its group. People are slower.
  Duration of_one_keystroke = std::chrono::milliseconds(250);
};

/// During its lifetime, the launcher's signals (SIGTERM, SIGINT, SIGUSR1, SIGHUP, SIGCHLD) are read from a
/// signalfd instead of interrupting, and SIGPIPE is ignored. SIGHUP is left alone if it is ignored (nohup).
class LauncherSignals {
 public:
  LauncherSignals();
  ~LauncherSignals();
  LauncherSignals(const LauncherSignals&) = delete;
  LauncherSignals& operator=(const LauncherSignals&) = delete;

  [[nodiscard]] int descriptor() const { return file_.get(); }
  /// The previous signal mask, for programs to start.
  [[nodiscard]] const sigset_t& mask_before() const { return before_; }
  /// The next pending signal, or 0.
  [[nodiscard]] int next();

 private:
  sigset_t before_{};
  struct sigaction pipe_before_ {};
  struct sigaction child_before_ {};
  engine::UniqueFd file_;
};

/// How the ranks of one start ended.
struct GroupEnd {
  struct Failure {
    int rank;
    pid_t pid;
    int status;        ///< status from waitpid()
    std::string said;  ///< last error message of the rank; empty if none was relayed
  };
  std::optional<Failure> first_failure;
  bool started = false;            ///< false: a signal to stop arrived before
  bool saved_and_stopped = false;  ///< a rank ended with exit code 75
  int stop_signal = 0;             ///< signal that the launcher received, or 0
};

/// The ranks of one node, from their start to the end of the last one.
class RankGroup {
 public:
  /// `plain_stdout`: lines of stdout are relayed without a prefix.
  RankGroup(LauncherSignals& signals, OutputRelay& relay, GracePeriods grace, bool plain_stdout)
      : signals_(signals), relay_(relay), grace_(grace), plain_stdout_(plain_stdout) {}

  /// Starts the ranks, relays their lines, forwards signals, and returns when all have ended. A rank that
  /// fails brings the others down, within the times of GracePeriods. Throws IoError if a rank cannot be
  /// started; none runs then.
  [[nodiscard]] GroupEnd run(const std::vector<RankCommand>& commands);

 private:
  using Clock = engine::RunningClock;
  struct Output {
    int descriptor;  // −1 after end of file
    OutputRelay::Stream stream;
    std::string prefix;  // of each line
    LineCutter cutter{};
    std::string said{};  // the last error line
  };
  struct Member {
    std::unique_ptr<RankProcess> process;
    std::vector<Output> outputs;
    bool ended = false;
    bool was_ended = false;  // ended by a signal of the launcher
    int status = 0;
    [[nodiscard]] std::string said() const;
    [[nodiscard]] bool is_done() const { return ended && exit_code_of(status) == 0; }
  };

  void start(const RankCommand& command);
  void wait_for_something();
  void take_signals();
  void on_stop(int number);
  void relay_output(Output& output);
  void drain(Member& member);
  void pass_on(Output& output, std::string_view bytes, bool ends);
  void reap();
  void on_failure(const Member& member);
  void kill_silent();
  void kill_rest(const std::string& because);
  void kill(Member& member, const std::string& because);
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
  GracePeriods grace_;
  bool plain_stdout_;
  engine::RunningClock clock_;
  std::vector<Member> members_;
  GroupEnd end_;
  bool all_stopped_ = false;
  std::optional<Clock::Time> term_at_;
  std::optional<Clock::Time> kill_at_;
  std::optional<Clock::Time> straggled_at_;  // deadline for the remaining ranks if they hang
  std::optional<Clock::Time> interrupted_at_;
};

}  // namespace voca::tools
