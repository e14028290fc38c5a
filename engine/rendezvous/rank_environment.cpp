#include "engine/rendezvous/rank_environment.h"

#include <system_error>

#include "engine/base/error.h"
#include "engine/rendezvous/job_secret.h"
#include "engine/rendezvous/slurm.h"

namespace voca::engine {
namespace {

constexpr int kLastPort = 65535;
constexpr const char* kWhoSets = "torchrun, srun and voca-engine launch set it";

int number_of(const EnvVars& variables, const char* name, int low, int high, int fallback) {
  return static_cast<int>(variables.number(name, low, high).value_or(fallback));
}

/// Launchers set all of these variables or none. A guessed default would sooner or later confuse a local rank
/// with a global one.
int required(const EnvVars& variables, const char* name, int low, int high, const std::string& because) {
  if (!variables.has(name)) throw UsageError("{}: is not set, though {}; {}", name, because, kWhoSets);
  return number_of(variables, name, low, high, low);
}

void place_on_nodes(const EnvVars& variables, RankEnvironment& e) {
  if (!variables.has("GROUP_WORLD_SIZE") && e.world_size % e.local_world_size != 0) {
    throw UsageError(
        "GROUP_WORLD_SIZE: is not set, and WORLD_SIZE {} is not a multiple of LOCAL_WORLD_SIZE {}",
        e.world_size, e.local_world_size);
  }
  e.nodes = number_of(variables, "GROUP_WORLD_SIZE", 1, e.world_size, e.world_size / e.local_world_size);
  e.node = number_of(variables, "GROUP_RANK", 0, e.nodes - 1, e.rank / e.local_world_size);
  // Each other node has at least one rank.
  const int elsewhere = e.world_size - e.local_world_size;
  if (elsewhere < e.nodes - 1 || (e.nodes == 1 && elsewhere > 0)) {
    throw UsageError("LOCAL_WORLD_SIZE: is {}, which does not fit WORLD_SIZE {} on {} node{}",
                     e.local_world_size, e.world_size, e.nodes, e.nodes == 1 ? "" : "s");
  }
}

RankEnvironment torchrun_environment(const EnvVars& variables) {
  if (!variables.has("WORLD_SIZE"))
    throw UsageError("WORLD_SIZE: is not set, though RANK is {}; {}", variables.text("RANK"), kWhoSets);
  RankEnvironment e;
  e.world_size = number_of(variables, "WORLD_SIZE", 1, kMaxRanks, 1);
  if (e.world_size > 1) {
    const std::string because = "WORLD_SIZE is " + std::to_string(e.world_size);
    e.rank = required(variables, "RANK", 0, e.world_size - 1, because);
    e.local_world_size = required(variables, "LOCAL_WORLD_SIZE", 1, e.world_size, because);
    e.local_rank = required(variables, "LOCAL_RANK", 0, e.local_world_size - 1, because);
    if (e.local_rank > e.rank) throw UsageError("LOCAL_RANK: is {}, more than RANK {}", e.local_rank, e.rank);
    place_on_nodes(variables, e);
  } else {
    for (const char* name : {"RANK", "LOCAL_RANK", "GROUP_RANK"})
      static_cast<void>(variables.number(name, 0, 0));
  }
  e.master_addr = variables.text("MASTER_ADDR");
  if (e.nodes > 1 && e.master_addr.empty())
    throw UsageError("MASTER_ADDR: is not set, though there are {} nodes; {}", e.nodes, kWhoSets);
  e.master_port = number_of(variables, "MASTER_PORT", 1, kLastPort, e.master_port);
  e.job = variables.text("TORCHELASTIC_RUN_ID");
  e.restart_count = number_of(variables, "TORCHELASTIC_RESTART_COUNT", 0, 1 << 20, 0);
  return e;
}

/// Whether torchrun's agent listens on MASTER_PORT. It says so since 1.12; agents of older versions always
/// do.
bool agent_has_master_port(const EnvVars& variables) {
  const std::string said = variables.text("TORCHELASTIC_USE_AGENT_STORE");
  if (said.empty()) return variables.has("TORCHELASTIC_RUN_ID");
  if (said == "True" || said == "true" || said == "1") return true;
  if (said == "False" || said == "false" || said == "0") return false;
  throw UsageError("TORCHELASTIC_USE_AGENT_STORE: is \"{}\", expected True or False", said);
}

int rendezvous_port(const EnvVars& variables, int master_port) {
  if (const auto given = variables.number("VOCA_MEETING_PORT", 1, kLastPort)) return static_cast<int>(*given);
  if (!agent_has_master_port(variables)) return master_port;
  // Not the next port: users who start several jobs on a machine increment MASTER_PORT by one.
  constexpr int kDistance = 1000;
  return master_port + kDistance <= kLastPort ? master_port + kDistance : master_port - kDistance;
}

std::string secret_of(const EnvVars& variables, const RankEnvironment& e,
                      const std::filesystem::path& runtime_folder) {
  std::string secret = given_secret(variables);
  if (!secret.empty()) return secret;
  if (e.nodes > 1) {
    throw UsageError(
        "VOCA_JOB_SECRET_FILE: is not set, and ranks on {} nodes need a secret to know each other by; make "
        "one that all nodes see: (umask 077; openssl rand -hex 32 > ~/.voca-job-secret); export "
        "VOCA_JOB_SECRET_FILE=~/.voca-job-secret",
        e.nodes);
  }
  if (runtime_folder.empty()) {
    throw UsageError(
        "TMPDIR: is not a folder, and the ranks' secret is kept there; make it, unset TMPDIR, or set "
        "VOCA_JOB_SECRET for all ranks");
  }
  return user_secret(runtime_folder);
}

}  // namespace

RankEnvironment rank_environment(const EnvVars& variables, const std::filesystem::path& runtime_folder) {
  const bool torchrun = variables.has("RANK") || variables.has("WORLD_SIZE");
  RankEnvironment e = torchrun ? torchrun_environment(variables) : slurm_environment(variables);
  if (e.nodes == 1 && e.master_addr != "::1") e.master_addr = "127.0.0.1";
  e.rendezvous_port = rendezvous_port(variables, e.master_port);
  if (e.world_size > 1) e.secret = secret_of(variables, e, runtime_folder);
  return e;
}

RankEnvironment rank_environment() {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);  // empty if there is none
  return rank_environment(EnvVars::of_process(), folder);
}

}  // namespace voca::engine
