#pragma once

#include <string_view>

// Advice for system limits, appended to error messages.

namespace voca::engine {

/// For a failure to start a process or thread.
inline constexpr std::string_view kRaiseProcessLimits =
    "raise the limit on processes and threads (ulimit -u, pids.max of the cgroup) or on memory (ulimit -v)";
/// For a failure to open a file, pipe or socket.
inline constexpr std::string_view kRaiseFileLimit = "raise the limit on open files (ulimit -n)";

}  // namespace voca::engine
