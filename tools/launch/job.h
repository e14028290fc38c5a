#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tools/launch/rank_group.h"

namespace voca::tools {

/// What one launcher starts: the ranks of one node of a job.
struct Job {
  int ranks_per_node = 1;
  int nodes = 1;
  int node = 0;
  /// Where rank 0 is; empty on one node: the loopback address.
  std::string master_addr;
  /// 0 on one node: a free port, another one at each restart. On several: 29500, torchrun's.
  int master_port = 0;
  int max_restarts = 0;
  /// Each rank gets its share of the cores that the launcher may use. For ranks that compute on the CPU.
  bool divide_cores = false;
  /// What ranks print to stdout passes without prefixes: for results that a program reads.
  bool plain_stdout = false;
  Patience patience;

  std::string executable;
  std::vector<std::string> words;  ///< argv of the first start, the program's name first
  /// argv of a restart; null: the same.
  std::function<std::vector<std::string>()> words_of_restart;
  /// Names what a start begins from, such as the newest state of a training; null: always from the same.
  std::function<std::string()> begins_from;
  /// Set for every rank beside the variables of a job.
  std::map<std::string, std::string> variables;

  int out = 1;  ///< where stdout of the ranks goes
  int err = 2;  ///< where their stderr goes, and what the launcher has to say
};

/// How it ended: `exit_code` of the first rank that failed (128 + n where signal n ended it), else 75 when
/// ranks were stopped and saved, else 0. `message` is one line that says why; empty with 0.
struct JobEnd {
  int exit_code = 0;
  std::string message;
};

/// Starts the ranks with torchrun's variables and a secret of their own, watches them, and starts all of them
/// again when one fails, up to `max_restarts` times; not after exit codes 64 and 65, which would come again,
/// nor after a signal to stop, nor where ranks of one node failed twice with the same words from the same
/// beginning. Call it from the main thread. Throws UsageError naming the option when nodes,
/// address, port or secret do not fit together; IoError when a rank cannot be started.
[[nodiscard]] JobEnd run_job(const Job& job);

/// `cores` in `ranks` shares of neighbours, equal to one; where there are fewer cores than ranks, ranks share
/// one each.
[[nodiscard]] std::vector<std::vector<int>> divide_cores(const std::vector<int>& cores, int ranks);

/// GPUs that a program started here would see: the devices /dev/nvidia<N> in `devices` as far as
/// `cuda_visible_devices` (null: not set) leaves them. The driver is not asked: that would make a CUDA
/// context in a process that computes nothing.
[[nodiscard]] int visible_gpus(const std::string& devices, const char* cuda_visible_devices);

}  // namespace voca::tools
