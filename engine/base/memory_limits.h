#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace voca::engine {

/// Memory that can still be allocated, and its limit.
struct FreeMemory {
  std::size_t bytes = 0;  ///< 0 with an empty `limit`: unknown
  /// The binding limit, for people: "MemAvailable", "cgroup limit 300.0 MiB of /slurm/job_12", "ulimit -v 2.0
  /// GiB". Empty for GPU memory.
  std::string limit;

  [[nodiscard]] bool known() const { return bytes > 0 || !limit.empty(); }
  /// "1.9 GiB can be taken (cgroup limit 300.0 MiB of /slurm/job_12)"
  [[nodiscard]] std::string text() const;
};

/// Host memory that this process can still allocate: the minimum of what the kernel counts as available (page
/// cache included) and what its cgroups (memory.max and memory.high of version 2, memory.limit_in_bytes of
/// version 1; its own and their ancestors, cached pages not counted as used), its limits (ulimit -v, ulimit
/// -d) and the commit limit of a machine that does not overcommit leave. Reads proc/ and the cgroup mounts
/// below `root`.
[[nodiscard]] FreeMemory free_host_memory(const std::filesystem::path& root = "/");

/// Address space that this process can still reserve, touched or not: what its limits and the commit limit
/// leave. Unknown if neither limits it.
[[nodiscard]] FreeMemory free_addresses(const std::filesystem::path& root = "/");

/// "1.9 GiB", "300.0 MiB"; TiB above 1024 GiB.
[[nodiscard]] std::string memory_text(std::size_t bytes);

}  // namespace voca::engine
