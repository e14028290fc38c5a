#pragma once

#include <filesystem>
#include <string>

#include "engine/rendezvous/env_vars.h"

namespace voca::engine {

/// What a rank knows of its job before it meets the others. From torchrun's variables,
/// which launch sets as well; where those are absent, from those of a Slurm step; without either, one rank.
struct RankEnvironment {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  int local_world_size = 1;
  int nodes = 1;
  int node = 0;
  /// Where rank 0 is. A loopback address while there is one node, whatever MASTER_ADDR says: nothing of such
  /// a job can be reached from elsewhere.
  std::string master_addr = "127.0.0.1";
  int master_port = 29500;      ///< MASTER_PORT; torchrun's agent listens there itself
  int rendezvous_port = 29500;  ///< where rank 0 listens
  std::string job;              ///< TORCHELASTIC_RUN_ID, or Slurm's job and step; "" for one rank alone
  int restart_count = 0;        ///< how often the job was started again
  std::string secret;           ///< known to the job's ranks only; "" for one rank alone. Never print it
};

/// Of this process. Throws UsageError naming the variable that is wrong, missing or contradicts another one;
/// IoError when the secret cannot be read.
[[nodiscard]] RankEnvironment rank_environment();
/// The same from given variables. `runtime_folder` is where user_secret() keeps its folder.
[[nodiscard]] RankEnvironment rank_environment(const EnvVars& variables,
                                               const std::filesystem::path& runtime_folder);

}  // namespace voca::engine
