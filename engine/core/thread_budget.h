#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace voca::engine {

/// Number of CPU threads for the kernels of one process, and the reason.
struct ThreadBudget {
  int threads = 1;
  std::string reason;  ///< for people: "2 cores of its affinity", "OMP_NUM_THREADS is 1"
};

/// Inputs from which the number of threads is derived.
struct ThreadLimits {
  int online = 1;                   ///< cores of the machine
  int affinity = 1;                 ///< cores this process may run on
  std::optional<double> cpu_quota;  ///< quota of its cgroup, in CPUs
  std::string omp_num_threads;      ///< OMP_NUM_THREADS and OMP_THREAD_LIMIT; empty: not set
  std::string omp_thread_limit;

  /// Limits of this process.
  [[nodiscard]] static ThreadLimits of_process();
  /// Whole CPUs that this process may use: its cores or, if smaller, its quota rounded up; at least 1.
  [[nodiscard]] int usable_cpus() const;
};

/// CPU quota of this process's cgroup (version 1 or 2) and its ancestors, in CPUs; nullopt if unlimited.
/// Searches below `root` (engine/base/cgroup.h).
[[nodiscard]] std::optional<double> cgroup_cpu_quota(const std::filesystem::path& root = "/");

/// Resolves `--threads 0` with this many ranks on the node. OMP_NUM_THREADS takes precedence; otherwise the
/// usable CPUs, divided among ranks that share them. OMP_THREAD_LIMIT caps the result.
[[nodiscard]] ThreadBudget thread_budget(int ranks_here, const ThreadLimits& limits);
[[nodiscard]] ThreadBudget thread_budget(int ranks_here = 1);

}  // namespace voca::engine
