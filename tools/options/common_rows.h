#pragma once

#include "tools/options/option_row.h"

// Rows of options that several commands have.

namespace voca::tools {

/// Bounds far beyond every use, within which sizes that are computed from the options do not overflow.
inline constexpr Range kWidth = between(1, 1 << 20);
inline constexpr Range kFrames = between(1, 1 << 24);

/// More threads cost more than they compute, and the system refuses them.
inline constexpr Range kThreadCount = between(0, 1024);
/// Of the commands that only read and write files.
inline constexpr OptionRow kWorkersRow{.name = "num_workers",
                                       .argument = "N",
                                       .help = "threads",
                                       .range = kThreadCount,
                                       .shown_default = "the CPUs that may be used, at most 16"};

inline constexpr OptionRow kDeviceRow{"device", "auto|cpu|cuda[:N]", "where to compute", kAny, Effect::kRank};
inline constexpr OptionRow kThreadsRow{
    "threads", "N", "CPU threads of the kernels; 0: OMP_NUM_THREADS, or the CPUs this process may use",
    kThreadCount, Effect::kRank};
inline constexpr double kUsualCommTimeout = 300;  // seconds
inline constexpr double kMaxCommTimeout = 1e7;    // seconds: four months, within every clock's range
inline constexpr OptionRow kCommTimeoutRow{"comm_timeout", "SECONDS",
                                           "longest wait for another rank, anywhere",
                                           between(1, kMaxCommTimeout, " seconds"), Effect::kJob};
inline constexpr OptionRow kQuietRow{"quiet", "", "no progress on stderr", kAny, Effect::kRank};
inline constexpr OptionRow kJsonRow{"json", "", "print the result as one JSON object", kAny, Effect::kRank};

}  // namespace voca::tools
