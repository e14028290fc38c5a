#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace voca::engine {

/// A control group that this process is in, of either version of the hierarchy.
struct Cgroup {
  std::filesystem::path folder;  ///< with its files, e.g. memory.max
  std::string name;              ///< as far as this process may see it: "/slurm/job_12"
  int version = 2;
};

/// The groups whose `controller` ("cpu", "memory") this process is under: its own and those above it, the
/// nearest first; of version 1 where that controller is mounted, and of version 2. Reads proc/self/cgroup and
/// proc/self/mountinfo below `root`; a group of which, as in a container, only the end or nothing is to be
/// seen is looked for from the mount point up. Empty where the system has none.
[[nodiscard]] std::vector<Cgroup> cgroups_of_process(std::string_view controller,
                                                     const std::filesystem::path& root = "/");

}  // namespace voca::engine
