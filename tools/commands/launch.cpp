#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/checkpoint/resume/resume_state.h"
#include "engine/core/device.h"
#include "engine/core/thread_budget.h"
#include "engine/rendezvous/env_vars.h"
#include "engine/rendezvous/slurm.h"
#include "engine/telemetry/run_folder.h"
#include "tools/commands.h"
#include "tools/launch/job.h"
#include "tools/options/device_options.h"
#include "tools/options/inference_options.h"
#include "tools/options/train_options.h"
#include "tools/train_files.h"
#include "tools/version.h"

namespace voca::tools {
namespace {

using engine::UsageError;
using Words = std::vector<std::string>;

constexpr std::int64_t kLastPort = 65535;

struct LaunchOptions {
  std::string nproc_per_node = "auto";
  std::int64_t nnodes = 1;
  std::int64_t node_rank = 0;
  std::string master_addr;
  std::int64_t master_port = 0;
  std::int64_t max_restarts = 0;
  double grace_period = 60;
};

void add_launch_options(OptionSet& set, LaunchOptions& o) {
  set.begin_group("Ranks");
  set.add("nproc_per_node", &o.nproc_per_node, "N|auto|gpu|cpu",
          "ranks on this node; auto: one a GPU, without GPUs one; cpu: one a core");
  set.add("nnodes", &o.nnodes, "N", "nodes, each of which runs launch with the same options but --node_rank");
  set.add("node_rank", &o.node_rank, "N", "this node, from 0; rank 0 is on node 0");
  set.begin_group("Rendezvous");
  set.add("master_addr", &o.master_addr, "HOST", "where node 0 is; needed with several nodes");
  set.add("master_port", &o.master_port, "PORT",
          "where rank 0 listens; 0: a free one, with several nodes 29500");
  set.begin_group("Failures");
  set.add("max_restarts", &o.max_restarts, "N", "how often all ranks are started again after one failed");
  set.add("grace_period", &o.grace_period, "SECONDS",
          "for ranks to save and end after SIGTERM, SIGINT, SIGUSR1 or SIGHUP; then SIGKILL");
}

void expect_between(const char* name, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high)
    throw UsageError("--{}: is {}, must be from {} to {}", name, value, low, high);
}

void check(const LaunchOptions& o) {
  expect_between("nnodes", o.nnodes, 1, engine::kMaxRanks);
  expect_between("node_rank", o.node_rank, 0, o.nnodes - 1);
  expect_between("master_port", o.master_port, 0, kLastPort);
  expect_between("max_restarts", o.max_restarts, 0, 1 << 20);
  constexpr double kMaxGrace = 86400;
  if (o.grace_period < 0 || o.grace_period > kMaxGrace)
    throw UsageError("--grace_period: is {}, must be from 0 to {} seconds", o.grace_period, kMaxGrace);
  const engine::EnvVars variables = engine::EnvVars::of_process();
  if (variables.has("LOCAL_RANK")) {
    throw UsageError(
        "LOCAL_RANK: is {}: launch was itself started as a rank; start voca-engine train there, or unset it",
        variables.text("LOCAL_RANK"));
  }
  const std::int64_t tasks = variables.number("SLURM_STEP_NUM_TASKS", 1, engine::kMaxRanks).value_or(1);
  if (tasks > 1 && tasks != o.nnodes) {
    throw UsageError(
        "--nnodes: is {}, but srun has started launch {} times; start voca-engine train by srun, or launch "
        "once a node",
        o.nnodes, tasks);
  }
}

/// Number of visible GPUs; 0 if this build cannot use them.
int usable_gpus() {
  const bool has_backend = !versions()["cuda_toolkit"].get<std::string>().empty();
  return has_backend ? visible_gpus("/dev", std::getenv("CUDA_VISIBLE_DEVICES")) : 0;
}

int ranks_per_node(const LaunchOptions& o, int gpus) {
  const std::string& text = o.nproc_per_node;
  if (text == "auto") return std::max(gpus, 1);
  if (text == "cpu") return engine::ThreadLimits::of_process().usable_cpus();
  if (text == "gpu") {
    if (gpus == 0) {
      throw UsageError(
          "--nproc_per_node gpu: no GPU can be used here; voca-engine doctor says why. Give a number for "
          "ranks on the CPU");
    }
    return gpus;
  }
  int ranks = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, ranks);
  const std::int64_t most = engine::kMaxRanks / o.nnodes;
  if (error != std::errc{} || rest != end || ranks < 1 || ranks > most) {
    throw UsageError("--nproc_per_node: is \"{}\", expected a number from 1 to {}, auto, gpu or cpu", text,
                     most);
  }
  return ranks;
}

/// The words before and after the first "--".
std::pair<CommandLine, CommandLine> split(CommandLine line) {
  const auto dashes = std::find_if(line.begin(), line.end(), [](std::string_view w) { return w == "--"; });
  const auto before = static_cast<std::size_t>(dashes - line.begin());
  if (dashes == line.end()) return {line, {}};
  return {line.first(before), line.subspan(before + 1)};
}

bool is_command(std::string_view word) {
  return find_command(word) != nullptr;
}

/// Whether the command shares its work among ranks; any other would repeat it on each.
bool works_on_ranks(std::string_view command) {
  return command == "train" || command == "eval" || command == "predict";
}

void check_command(CommandLine command) {
  const std::string example = "for example: voca-engine launch --nproc_per_node 4 -- train --features_root X";
  if (command.empty()) throw UsageError("launch: needs a command after --, {}", example);
  if (!is_command(command[0])) throw UsageError("launch: {}", unknown_command(command[0]).what());
  if (std::string_view(command[0]) == "launch")
    throw UsageError("launch: does not start itself on several ranks; {}", example);
  if (!works_on_ranks(command[0])) {
    throw UsageError(
        "launch: {0} does not share its work among ranks (train, eval and predict do); start "
        "voca-engine {0} without launch",
        command[0]);
  }
}

/// Identifies the version of a file, by inode and modification time; empty if there is no file.
std::string mark_of(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  return fmt::format("{} {}.{}", status.st_ino, status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
}

/// Command line for a restart of train, which resumes from the newest state and no longer discards anything.
/// Before the run has begun, the command stays unchanged: there is nothing of this job to resume, and the
/// folder may hold another run that --overwrite has yet to discard. --resume PATH also stays: if no state was
/// saved yet, "auto" would start without it.
std::function<Words()> restart_of_training(const Words& words, const TrainOptions& options,
                                           const OptionSet& set, bool on_first_node) {
  // Every run writes this file once it owns its folder.
  const std::filesystem::path config = engine::RunFolder::config_path_of(run_paths(options).run_dir);
  const std::string at_first = mark_of(config);
  std::vector<std::pair<std::string, std::string>> changes;
  if (options.overwrite) changes.emplace_back("overwrite", "false");
  if (options.resume.empty()) changes.emplace_back("resume", "auto");
  Words again = set.words_with(changes);
  again.insert(again.begin(), words.begin(), words.begin() + 2);  // voca-engine train
  return [=] {
    // Another node may not see the folder; only rank 0 decides what the run starts from.
    return on_first_node && mark_of(config) == at_first ? words : again;
  };
}

}  // namespace

void launch(CommandLine command_line) {
  const auto [own, command] = split(command_line);
  LaunchOptions options;
  OptionSet set("launch",
                "Starts a command on several ranks, as torchrun does (docs/distributed.md): "
                "voca-engine launch [options] -- train ...");
  add_launch_options(set, options);
  // Without "--", the command would be refused as a malformed option.
  if (command.empty() && std::any_of(own.begin(), own.end(), is_command)) check_command(command);
  if (!set.parse(own)) return;
  check(options);
  check_command(command);

  const int gpus = usable_gpus();
  Job job;
  job.ranks_per_node = ranks_per_node(options, gpus);
  job.nodes = static_cast<int>(options.nnodes);
  job.node = static_cast<int>(options.node_rank);
  job.master_addr = options.master_addr;
  job.master_port = static_cast<int>(options.master_port);
  job.max_restarts = static_cast<int>(options.max_restarts);
  job.divide_cores = gpus == 0;
  if (gpus > 0) job.variables[kLaunchedForGpus] = std::to_string(gpus);
  // Output that programs read.
  job.plain_stdout =
      is_switched_on(command, "json") || (!command.empty() && command[0] == std::string_view("predict"));
  job.grace.after_stop =
      std::chrono::duration_cast<GracePeriods::Duration>(std::chrono::duration<double>(options.grace_period));
  job.executable = "/proc/self/exe";
  job.words = {"voca-engine"};
  job.words.insert(job.words.end(), command.begin(), command.end());

  // Report errors once here rather than on every rank.
  const std::string_view name = command[0];
  if (name == "eval" && !check_eval(command.subspan(1))) return;
  if (name == "predict" && !check_predict(command.subspan(1))) return;
  if (name == "train") {
    TrainOptions train;
    OptionSet train_set("train", "Trains a detector (docs/training.md).");
    add_train_options(train_set, train);
    if (!train_set.parse(command.subspan(1))) return;
    train_set.require("features_root");
    check_train_inputs(train, job.node == 0);
    const std::filesystem::path pointer =
        engine::RunFolder::checkpoint_folder_of(run_paths(train).run_dir) / engine::kStatePointer;
    job.begins_from = [pointer] { return mark_of(pointer); };
    job.words_of_restart = restart_of_training(job.words, train, train_set, job.node == 0);
  }
  if (const JobEnd end = run_job(job); end.exit_code != 0)
    throw engine::Error(static_cast<engine::ExitCode>(end.exit_code), end.message);
}

}  // namespace voca::tools
