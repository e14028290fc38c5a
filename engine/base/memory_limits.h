#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace voca::engine {

/// How much more memory can be taken, and what says so.
struct FreeMemory {
  std::size_t bytes = 0;  ///< 0 with an empty `limit`: not known
  /// What binds, for people: "MemAvailable", "cgroup limit 300.0 MiB of /slurm/job_12", "ulimit -v 2.0 GiB".
  /// Empty for a GPU's own.
  std::string limit;

  [[nodiscard]] bool known() const { return bytes > 0 || !limit.empty(); }
  /// "1.9 GiB can be taken (cgroup limit 300.0 MiB of /slurm/job_12)"
  [[nodiscard]] std::string text() const;
};

/// Memory of the host that this process can still take: what the kernel counts as available, page cache
/// included, and not more than its cgroups (memory.max and memory.high of version 2, memory.limit_in_bytes of
/// version 1; its own and those above it, cached pages not counted as used), its limits (ulimit -v, ulimit
/// -d) and a machine that does not overcommit leave. Reads proc/ and the cgroups' mounts below `root`.
/// `reserved` are addresses that the process is still going to take beside, and hardly to touch.
[[nodiscard]] FreeMemory free_host_memory(const std::filesystem::path& root = "/", std::size_t reserved = 0);

/// Addresses that it can still take, touched or not: what the last two of these leave. Not known where
/// nothing limits them.
[[nodiscard]] FreeMemory free_addresses(const std::filesystem::path& root = "/");

/// "1.9 GiB", "300.0 MiB"; TiB from 1024 GiB.
[[nodiscard]] std::string memory_text(std::size_t bytes);

}  // namespace voca::engine
