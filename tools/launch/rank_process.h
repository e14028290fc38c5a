#pragma once

#include <sys/types.h>

#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/unique_fd.h"

namespace voca::tools {

/// What a rank is started as.
struct RankCommand {
  int rank = 0;  ///< of the whole job
  std::string executable;
  std::vector<std::string> words;        ///< argv, the program's name first
  std::vector<std::string> environment;  ///< "NAME=value", nothing else is inherited
  std::vector<int> cores;                ///< it may run on; empty: on those of the launcher
  bool shares_output = false;            ///< writes to the launcher's own stdout and stderr, reads its stdin
};

/// A rank as a direct child of this process. It dies with the thread that started it (PR_SET_PDEATHSIG is
/// about threads): start ranks from the main thread.
class RankProcess {
 public:
  /// Throws IoError when it cannot be started. `signals` is the mask that it begins with.
  RankProcess(const RankCommand& command, const sigset_t& signals);
  /// One that still runs is killed and waited for.
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Ends of pipes for reading, without blocking; −1 when it shares the launcher's.
  [[nodiscard]] int out() const { return out_.get(); }
  [[nodiscard]] int err() const { return err_.get(); }
  /// Nothing once its end was seen: the number may be another process by then.
  void signal(int number) const;
  /// The status of waitpid() when it has ended; nullopt while it runs. Does not block.
  [[nodiscard]] std::optional<int> status();
  /// Whether a signal (SIGSTOP, SIGTSTP, …) has stopped it, and none has continued it.
  [[nodiscard]] bool is_stopped() const;

 private:
  int rank_;
  pid_t pid_ = -1;
  std::optional<int> status_;
  engine::UniqueFd out_;
  engine::UniqueFd err_;
};

/// For people: "exit code 74 (the system refused something, or another rank was lost)", "ended by SIGKILL".
[[nodiscard]] std::string describe_end(int status);
/// What a shell would say: the exit code, or 128 and the number of the signal.
[[nodiscard]] int exit_code_of(int status);

}  // namespace voca::tools
