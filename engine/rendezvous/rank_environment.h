#pragma once

#include <filesystem>
#include <string>

#include "engine/rendezvous/env_vars.h"

namespace voca::engine {

/// A rank's view of its job before the rendezvous. Read from torchrun's variables (which launch sets as
/// well), else from those of a Slurm step, else a world of one rank.
struct RankEnvironment {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  int local_world_size = 1;
  int nodes = 1;
  int node = 0;
  /// Address of rank 0. Always a loopback address if there is one node, whatever MASTER_ADDR says, so that no
  /// other machine can reach the job.
  std::string master_addr = "127.0.0.1";
  int master_port = 29500;      ///< MASTER_PORT; torchrun's agent itself listens there
  int rendezvous_port = 29500;  ///< port that rank 0 listens on
  std::string job;              ///< TORCHELASTIC_RUN_ID, or Slurm's job and step; "" in a world of one
  int restart_count = 0;        ///< how often the job was restarted
  std::string secret;           ///< known to the job's ranks only; "" in a world of one. Never print it
};

/// Environment of this process. Throws UsageError naming the variable that is wrong, missing or contradicts
/// another one; IoError when the secret cannot be read.
[[nodiscard]] RankEnvironment rank_environment();
/// Overload for given variables. `runtime_folder` is the parent folder for user_secret().
[[nodiscard]] RankEnvironment rank_environment(const EnvVars& variables,
                                               const std::filesystem::path& runtime_folder);

}  // namespace voca::engine
