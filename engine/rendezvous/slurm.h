#pragma once

#include <string>
#include <vector>

#include "engine/rendezvous/environment.h"

namespace voca::engine {

/// Nodes and tasks beyond which a list of Slurm's is refused rather than expanded.
inline constexpr int kMaxRanks = 65536;

/// The names in a node list such as "node[01-04,7],gpu-a[1-2]b,login": zeros in front are kept, a name may
/// have several brackets, the last one varies fastest. Throws UsageError naming `variable`.
[[nodiscard]] std::vector<std::string> expand_node_list(const std::string& variable, const std::string& list);

/// Tasks on each node, from a list such as "4(x2),3". Throws UsageError naming `variable`.
[[nodiscard]] std::vector<int> expand_task_counts(const std::string& variable, const std::string& list);

/// A rank's place in the Slurm step it is a task of, all but the secret. One rank outside of a step, in a
/// step of one task, and in the shell of salloc or the script of sbatch, whose SLURM_NTASKS is what was
/// reserved.
[[nodiscard]] RankEnvironment slurm_environment(const EnvVars& variables);

}  // namespace voca::engine
