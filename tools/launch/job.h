#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tools/launch/rank_group.h"

namespace voca::tools {

/// The ranks of one node of a job, which one launcher starts.
struct Job {
  int ranks_per_node = 1;
  int nodes = 1;
  int node = 0;
  /// Address of rank 0; if empty, the loopback address (one node only).
  std::string master_addr;
  /// Port of rank 0. If 0: a free port, a new one at each restart, on one node; 29500, as in torchrun, on
  /// several.
  int master_port = 0;
  int max_restarts = 0;
  /// Gives each rank its share of the cores that the launcher may use. For ranks that compute on the CPU.
  bool divide_cores = false;
  /// Relays stdout of the ranks without prefixes, for results that a program reads.
  bool plain_stdout = false;
  GracePeriods grace;

  std::string executable;
  std::vector<std::string> words;  ///< argv of the first start, including the program's name
  /// argv of a restart; null: the same `words`.
  std::function<std::vector<std::string>()> words_of_restart;
  /// Identifies what a start begins from, such as the newest state of a training; by default always the same.
  std::function<std::string()> begins_from = [] { return std::string(); };
  /// Environment variables for every rank, besides those of a job.
  std::map<std::string, std::string> variables;

  int out = 1;  ///< descriptor for stdout of the ranks
  int err = 2;  ///< descriptor for their stderr and the launcher's messages
};

/// How a job ended. `exit_code` is that of the first rank that failed (128 + n if signal n ended it), else
/// 128 + n if signal n arrived before the start, else 75 if ranks were stopped and saved, else 74 if output
/// was lost, else 0. `message` is one line that says why; empty with 0.
struct JobEnd {
  int exit_code = 0;
  std::string message;
};

/// Starts the ranks with torchrun's variables and, on one node, a secret of their own. Watches them, and
/// restarts all of them if one fails, up to `max_restarts` times. There is no restart after exit codes 64 and
/// 65, which would recur, after a signal to stop, or if ranks of a one-node job failed twice with the same
/// message from the same beginning. Must be called from the main thread. Throws UsageError naming the option
/// if nodes, address, port or secret do not fit together, IoError if a rank cannot be started.
[[nodiscard]] JobEnd run_job(const Job& job);

/// Divides `cores` into `ranks` contiguous shares, whose sizes differ by at most one; if there are fewer
/// cores than ranks, each rank gets one core, which others share.
[[nodiscard]] std::vector<std::vector<int>> divide_cores(const std::vector<int>& cores, int ranks);

/// Number of GPUs that a program started here would see: the devices /dev/nvidia<N> in folder `devices`,
/// limited by `cuda_visible_devices` (null: not set). The driver is not queried: that would create a CUDA
/// context in a process that computes nothing.
[[nodiscard]] int visible_gpus(const std::string& devices, const char* cuda_visible_devices);

}  // namespace voca::tools
