#include "tools/launch/job.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <string_view>
#include <system_error>

#include "engine/base/error.h"
#include "engine/base/terminal.h"
#include "engine/core/device.h"
#include "engine/rendezvous/env_vars.h"
#include "engine/rendezvous/job_secret.h"
#include "engine/rendezvous/rank_environment.h"

namespace voca::tools {
namespace {

using engine::ExitCode;
using engine::UsageError;

using Environment = std::map<std::string, std::string>;

constexpr int kTorchrunPort = 29500;

bool is_free(int port) {
  const engine::UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (listener.get() < 0) throw engine::IoError("launch: a socket: {}", std::strerror(errno));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  address.sin_port = ::htons(static_cast<std::uint16_t>(port));
  return ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

/// A free port below those that the system assigns to connections (from 32768), so that no connection takes
/// it before rank 0 does.
int free_port() {
  std::random_device random;
  std::uniform_int_distribution<int> ports(20000, 32767);
  constexpr int kTries = 1000;
  for (int i = 0; i < kTries; ++i)
    if (const int port = ports(random); is_free(port)) return port;
  throw engine::IoError("launch: no free port from 20000 to 32767 on the loopback interface");
}

/// Whether the name is that of a GPU: nvidia0, nvidia1, …; not nvidiactl and the like.
bool is_gpu(const std::string& name) {
  constexpr std::string_view kStem = "nvidia";
  return name.starts_with(kStem) && name.size() > kStem.size() &&
         name.find_first_not_of("0123456789", kStem.size()) == name.npos;
}

/// Environment that all ranks of the job share, at every restart.
Environment common_environment(const Job& job) {
  Environment e = engine::EnvVars::of_process().values();
  for (const auto& [name, value] : job.variables) e[name] = value;
  e["WORLD_SIZE"] = std::to_string(job.ranks_per_node * job.nodes);
  e["LOCAL_WORLD_SIZE"] = std::to_string(job.ranks_per_node);
  e["GROUP_RANK"] = std::to_string(job.node);
  e["GROUP_WORLD_SIZE"] = std::to_string(job.nodes);
  e["MASTER_ADDR"] = job.master_addr.empty() ? "127.0.0.1" : job.master_addr;
  e["TORCHELASTIC_MAX_RESTARTS"] = std::to_string(job.max_restarts);
  // The launcher does not listen on MASTER_PORT: rank 0 does.
  e["TORCHELASTIC_USE_AGENT_STORE"] = "False";
  if (job.nodes == 1) {
    // Never a secret that an earlier job may have had.
    e["VOCA_JOB_SECRET"] = engine::fresh_secret();
    e.erase("VOCA_JOB_SECRET_FILE");
    e["TORCHELASTIC_RUN_ID"] = engine::fresh_secret().substr(0, 16);
  } else {
    e["TORCHELASTIC_RUN_ID"] = fmt::format("{}:{}", job.master_addr, job.master_port);
  }
  return e;
}

Environment rank_environment(Environment e, const Job& job, int local_rank, int port, int restart) {
  const int rank = job.node * job.ranks_per_node + local_rank;
  e["RANK"] = std::to_string(rank);
  e["LOCAL_RANK"] = std::to_string(local_rank);
  e["MASTER_PORT"] = std::to_string(port);
  e["TORCHELASTIC_RESTART_COUNT"] = std::to_string(restart);
  if (job.ranks_per_node * job.nodes > 1) {
    // The lines of the rank stand beside their prefix.
    const int columns = engine::terminal_columns(job.err) - static_cast<int>(rank_prefix(rank).size());
    e["COLUMNS"] = std::to_string(std::max(1, columns));
  }
  return e;
}

std::vector<std::string> flat(const Environment& environment) {
  std::vector<std::string> result;
  for (const auto& [name, value] : environment) result.push_back(fmt::format("{}={}", name, value));
  return result;
}

std::vector<RankCommand> commands_of(const Job& job, const Environment& common, int restart) {
  const int port = job.master_port != 0 ? job.master_port : free_port();
  std::vector<std::vector<int>> shares(static_cast<std::size_t>(job.ranks_per_node));
  if (job.divide_cores && job.ranks_per_node > 1)
    shares = divide_cores(engine::usable_cores(), job.ranks_per_node);
  const std::vector<std::string> words =
      restart > 0 && job.words_of_restart ? job.words_of_restart() : job.words;
  std::vector<RankCommand> commands;
  for (int local_rank = 0; local_rank < job.ranks_per_node; ++local_rank) {
    commands.push_back({.rank = job.node * job.ranks_per_node + local_rank,
                        .executable = job.executable,
                        .words = words,
                        .environment = flat(rank_environment(common, job, local_rank, port, restart)),
                        .cores = shares[static_cast<std::size_t>(local_rank)],
                        .shares_output = job.ranks_per_node * job.nodes == 1});
  }
  return commands;
}

void check(const Job& job) {
  if (job.nodes > 1 && job.master_addr.empty()) {
    throw UsageError("--master_addr: is needed with --nnodes {}: the name or address of the node of rank 0",
                     job.nodes);
  }
  if (job.nodes == 1) return;
  // Each rank checks this too; reporting it once, before any has started, is better.
  const Environment first = rank_environment(common_environment(job), job, 0, job.master_port, 0);
  static_cast<void>(engine::rank_environment(engine::EnvVars(first), "/nonexistent"));
}

bool would_fail_again(int status) {
  const int code = exit_code_of(status);
  return code == static_cast<int>(ExitCode::kUsage) || code == static_cast<int>(ExitCode::kBadData);
}

/// Message for a failed rank, with the rank's own message if it had one.
std::string failure_line(const Job& job, const GroupEnd::Failure& failure) {
  const std::string end = failure.said.empty()
                              ? describe_end(failure.status)
                              : fmt::format("exit code {}: {}", exit_code_of(failure.status), failure.said);
  return fmt::format("launch: rank {} (pid {}) failed{}: {}", failure.rank, failure.pid,
                     job.ranks_per_node > 1 ? " first" : "", end);
}

/// A failed start, and what it began from.
struct FailedStart {
  GroupEnd::Failure failure;
  std::string began_from;
};

/// Whether the second start failed exactly as the first did, with the same message, and would do so again.
/// Process ids in messages about lost ranks distinguish two losses. False on several nodes, whose launchers
/// must agree on the number of starts.
bool went_alike(const Job& job, const FailedStart& first, const FailedStart& second) {
  return job.nodes == 1 && WIFEXITED(second.failure.status) &&
         first.failure.status == second.failure.status && first.failure.said == second.failure.said &&
         first.began_from == second.began_from;
}

std::string no_restart_reason(const Job& job, const GroupEnd& end, bool failed_alike) {
  if (end.stop_signal != 0) return fmt::format("after SIG{}", ::sigabbrev_np(end.stop_signal));
  if (would_fail_again(end.first_failure->status)) return "not started again: it would fail again";
  if (failed_alike) return "not started again: the start before failed in the same way";
  if (job.max_restarts == 0) return "not started again (--max_restarts 0)";
  return fmt::format("not started again: {} of {} restarts are used up", job.max_restarts, job.max_restarts);
}

JobEnd job_end(const Job& job, const GroupEnd& end, bool failed_alike, const OutputRelay& relay) {
  if (end.first_failure) {
    return {
        .exit_code = exit_code_of(end.first_failure->status),
        .message = failure_line(job, *end.first_failure) + "; " + no_restart_reason(job, end, failed_alike)};
  }
  if (!end.started) {
    return {
        .exit_code = 128 + end.stop_signal,
        .message = fmt::format("launch: SIG{} before a rank was started", ::sigabbrev_np(end.stop_signal))};
  }
  if (end.saved_and_stopped) {
    const std::string by = end.stop_signal != 0 ? fmt::format("SIG{}", ::sigabbrev_np(end.stop_signal))
                                                : "a signal that the launcher did not see";
    return {.exit_code = static_cast<int>(ExitCode::kInterrupted),
            .message =
                fmt::format("launch: stopped by {}; the state was saved, continue with --resume auto", by)};
  }
  if (relay.lost_results())
    return {.exit_code = static_cast<int>(ExitCode::kIo), .message = "stdout: cannot be written"};
  return {};
}

/// Writes the remaining lines, waiting for a slow reader until a SIGINT arrives.
void write_rest(OutputRelay& relay, LauncherSignals& signals) {
  for (;;) {
    relay.write_some();
    if (relay.waiting_for() < 0) return;
    pollfd entries[] = {{.fd = relay.waiting_for(), .events = POLLOUT, .revents = 0},
                        {.fd = signals.descriptor(), .events = POLLIN, .revents = 0}};
    ::poll(entries, std::size(entries), -1);
    while (const int number = signals.next())
      if (number == SIGINT) return;
  }
}

}  // namespace

JobEnd run_job(const Job& given) {
  Job job = given;
  if (job.nodes > 1 && job.master_port == 0) job.master_port = kTorchrunPort;
  check(job);
  const Environment common = common_environment(job);
  LauncherSignals signals;
  OutputRelay relay(job.out, job.err);
  std::optional<FailedStart> before;
  for (int restart = 0;; ++restart) {
    const std::string began_from = job.begins_from();
    RankGroup group(signals, relay, job.grace, job.plain_stdout);
    GroupEnd end = group.run(commands_of(job, common, restart));
    if (!end.started && before) end.first_failure = before->failure;
    const bool failed_alike = end.started && end.first_failure && before &&
                              went_alike(job, *before, {*end.first_failure, began_from}) &&
                              job.begins_from() == began_from;
    const bool again = end.first_failure && end.stop_signal == 0 && restart < job.max_restarts &&
                       !would_fail_again(end.first_failure->status) && !failed_alike;
    if (!again) {
      write_rest(relay, signals);
      return job_end(job, end, failed_alike, relay);
    }
    before = {*end.first_failure, began_from};
    relay.add(OutputRelay::Stream::kErr,
              fmt::format("{}; restart {} of {}\n", failure_line(job, before->failure), restart + 1,
                          job.max_restarts));
  }
}

std::vector<std::vector<int>> divide_cores(const std::vector<int>& cores, int ranks) {
  const auto count = static_cast<std::ptrdiff_t>(cores.size());
  std::vector<std::vector<int>> result(static_cast<std::size_t>(ranks));
  for (std::ptrdiff_t i = 0; i < ranks && count > 0; ++i) {
    const std::ptrdiff_t begin = i * count / ranks;
    const std::ptrdiff_t end = std::max((i + 1) * count / ranks, begin + 1);
    result[static_cast<std::size_t>(i)].assign(cores.begin() + begin, cores.begin() + end);
  }
  return result;
}

int visible_gpus(const std::string& devices, const char* cuda_visible_devices) {
  int count = 0;
  std::error_code error;
  // A container may have only devices 2 and 3; CUDA numbers them from 0.
  for (std::filesystem::directory_iterator entry(devices, error), end; !error && entry != end;
       entry.increment(error))
    if (is_gpu(entry->path().filename().string())) ++count;
  if (cuda_visible_devices == nullptr) return count;
  int visible = 0;
  std::string_view rest = cuda_visible_devices;
  // CUDA ignores the first entry that names no device, and all that follow.
  while (!rest.empty()) {
    const std::string entry(rest.substr(0, rest.find(',')));
    rest.remove_prefix(std::min(rest.size(), entry.size() + 1));
    const bool is_id = entry.starts_with("GPU-") || entry.starts_with("MIG-");
    char* end = nullptr;
    const long index = std::strtol(entry.c_str(), &end, 10);
    const bool is_index = end != entry.c_str() && *end == '\0' && index >= 0 && index < count;
    if (count == 0 || (!is_id && !is_index)) break;
    ++visible;
  }
  return visible;
}

}  // namespace voca::tools
