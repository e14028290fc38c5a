#pragma once

#include <string>
#include <vector>

#include "engine/rendezvous/rank_environment.h"

namespace voca::engine {

/// Maximum number of nodes or tasks; larger Slurm lists are refused instead of expanded.
inline constexpr int kMaxRanks = 65536;

/// Names in a node list such as "node[01-04,7],gpu-a[1-2]b,login". Leading zeros are kept, a name may have
/// several brackets, and the last bracket varies fastest. Throws UsageError naming `variable`.
[[nodiscard]] std::vector<std::string> expand_node_list(const std::string& variable, const std::string& list);

/// Number of tasks on each node, from a list such as "4(x2),3". Throws UsageError naming `variable`.
[[nodiscard]] std::vector<int> expand_task_counts(const std::string& variable, const std::string& list);

/// Environment of this task of a Slurm step, without the secret. A world of one outside of a step, in a step
/// of one task, and in an salloc shell or sbatch script, where SLURM_NTASKS is the number of reserved tasks.
[[nodiscard]] RankEnvironment slurm_environment(const EnvVars& variables);

}  // namespace voca::engine
