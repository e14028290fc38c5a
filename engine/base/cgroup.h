#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace voca::engine {

/// A control group of this process, in version 1 or 2 of the hierarchy.
struct Cgroup {
  std::filesystem::path folder;  ///< contains its files, e.g. memory.max
  std::string name;              ///< as visible to this process: "/slurm/job_12"
  int version = 2;
};

/// The groups whose `controller` ("cpu", "memory") applies to this process: its own and their ancestors,
/// nearest first, in version 1 (where that controller is mounted) and version 2. Reads proc/self/cgroup and
/// proc/self/mountinfo below `root`. If only the end of a group's path, or none of it, is visible, as in a
/// container, the search starts at the mount point and goes up. Empty if the system has no cgroups.
[[nodiscard]] std::vector<Cgroup> cgroups_of_process(std::string_view controller,
                                                     const std::filesystem::path& root = "/");

}  // namespace voca::engine
