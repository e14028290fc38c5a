#pragma once

#include <sys/types.h>

#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/unique_fd.h"

namespace voca::tools {

/// How to start a rank.
struct RankCommand {
  int rank = 0;  ///< rank in the whole job
  std::string executable;
  std::vector<std::string> words;        ///< argv, including the program's name
  std::vector<std::string> environment;  ///< "NAME=value"; nothing else is inherited
  std::vector<int> cores;                ///< cores it may run on; empty: the launcher's
  bool shares_output = false;            ///< uses stdin, stdout and stderr of the launcher
};

/// A rank as a direct child of this process. It dies with the thread that started it (PR_SET_PDEATHSIG is per
/// thread), so ranks must be started from the main thread.
class RankProcess {
 public:
  /// Throws IoError if the rank cannot be started. `signals` is its initial signal mask.
  RankProcess(const RankCommand& command, const sigset_t& signals);
  /// Kills and waits for a rank that still runs.
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Non-blocking read ends of pipes; −1 if the rank shares the descriptors of the launcher.
  [[nodiscard]] int out() const { return out_.get(); }
  [[nodiscard]] int err() const { return err_.get(); }
  /// Sends a signal. No-op once status() has seen its end: the pid may be another process by then.
  void signal(int number) const;
  /// Status from waitpid() if the rank has ended; nullopt while it runs. Does not block.
  [[nodiscard]] std::optional<int> status();
  /// Whether a signal (SIGSTOP, SIGTSTP, …) has stopped the rank and none has continued it.
  [[nodiscard]] bool is_stopped() const;

 private:
  int rank_;
  pid_t pid_ = -1;
  std::optional<int> status_;
  engine::UniqueFd out_;
  engine::UniqueFd err_;
};

/// Describes the end for people: "exit code 74 (the system refused something, or another rank was lost)",
/// "ended by SIGKILL".
[[nodiscard]] std::string describe_end(int status);
/// Exit code as a shell reports it: that of the process, or 128 plus the number of the signal.
[[nodiscard]] int exit_code_of(int status);

}  // namespace voca::tools
