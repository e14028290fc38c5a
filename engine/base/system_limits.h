#pragma once

#include <string_view>

// What to do where a limit of the system is in the way; the end of a message.

namespace voca::engine {

/// No further process or thread can be started.
inline constexpr std::string_view kRaiseProcessLimits =
    "raise the limit on processes and threads (ulimit -u, pids.max of the cgroup) or on memory (ulimit -v)";
/// No further file, pipe or socket can be opened.
inline constexpr std::string_view kRaiseFileLimit = "raise the limit on open files (ulimit -n)";

}  // namespace voca::engine
