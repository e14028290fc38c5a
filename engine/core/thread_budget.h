#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace voca::engine {

/// How many CPU threads the kernels of one process take, and what says so.
struct ThreadBudget {
  int threads = 1;
  std::string reason;  ///< for people: "2 cores of its affinity", "OMP_NUM_THREADS is 1"
};

/// What the number of threads follows from.
struct ThreadLimits {
  int online = 1;                   ///< cores of the machine
  int affinity = 1;                 ///< cores this process may run on
  std::optional<double> cpu_quota;  ///< of its cgroup, in CPUs
  std::string omp_num_threads;      ///< OMP_NUM_THREADS, OMP_THREAD_LIMIT; empty: not set
  std::string omp_thread_limit;

  /// Those of this process.
  [[nodiscard]] static ThreadLimits of_process();
  /// Whole CPUs that this process may use: its cores, or fewer by its quota; at least 1.
  [[nodiscard]] int usable_cpus() const;
};

/// The CPU time that the cgroup (version 1 or 2) of this process and those above it leave, in CPUs; nothing
/// where there is no limit. Finds them below `root` (engine/base/cgroup.h).
[[nodiscard]] std::optional<double> cgroup_cpu_quota(const std::filesystem::path& root = "/");

/// What `--threads 0` stands for, with so many ranks on this node. OMP_NUM_THREADS is taken at its word; else
/// the usable CPUs, a rank's share of them where the ranks have them in common.
[[nodiscard]] ThreadBudget thread_budget(int ranks_here, const ThreadLimits& limits);
[[nodiscard]] ThreadBudget thread_budget(int ranks_here = 1);

}  // namespace voca::engine
