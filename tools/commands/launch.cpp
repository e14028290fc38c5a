#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
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

/// Value of --nproc_per_node.
struct RanksPerNode {
  enum class Kind : std::uint8_t { kNumber, kAuto, kGpu, kCpu };
  Kind kind = Kind::kAuto;
  int number = 0;  ///< of kNumber

  static constexpr std::string_view kForm = "a number of ranks, auto, gpu or cpu";
  [[nodiscard]] static std::optional<RanksPerNode> parse(std::string_view text) {
    for (const Kind kind : {Kind::kAuto, Kind::kGpu, Kind::kCpu})
      if (const RanksPerNode ranks{.kind = kind}; ranks.text() == text) return ranks;
    const std::optional<int> number = parse_number<int>(text);
    if (!number || *number < 1) return std::nullopt;
    return RanksPerNode{.kind = Kind::kNumber, .number = *number};
  }
  [[nodiscard]] std::string text() const {
    if (kind == Kind::kNumber) return std::to_string(number);
    if (kind == Kind::kAuto) return "auto";
    return kind == Kind::kGpu ? "gpu" : "cpu";
  }
};

struct LaunchOptions {
  RanksPerNode nproc_per_node;
  Job job;
  double grace_period = 60;
};

void add_launch_options(OptionSet& set, LaunchOptions& o) {
  set.begin_group("Ranks");
  set.add(o.nproc_per_node,
          {"nproc_per_node", "N|auto|gpu|cpu",
           "ranks on this node; auto: one per GPU, without GPUs one; cpu: one per usable core"});
  set.add(o.job.nodes,
          {"nnodes", "N", "nodes, each of which runs launch with the same options but --node_rank",
           between(1, engine::kMaxRanks)});
  set.add(o.job.node,
          {"node_rank", "N", "this node, from 0; rank 0 is on node 0", between(0, engine::kMaxRanks - 1)});
  set.begin_group("Rendezvous");
  set.add(o.job.master_addr, {"master_addr", "HOST", "where node 0 is; needed with several nodes"});
  set.add(o.job.master_port,
          {"master_port", "PORT", "where rank 0 listens; 0: a free one, with several nodes 29500",
           between(0, 65535)});
  set.begin_group("Failures");
  set.add(o.job.max_restarts, {"max_restarts", "N", "how often all ranks are started again after one failed",
                               between(0, 1 << 20)});
  set.add(o.grace_period, {"grace_period", "SECONDS",
                           "for ranks to save and end after SIGTERM, SIGINT, SIGUSR1 or SIGHUP; then SIGKILL",
                           between(0, 86400, " seconds")});
}

void check(const Job& job) {
  if (job.node >= job.nodes)
    throw UsageError("--node_rank: is {}, must be from 0 to {}", job.node, job.nodes - 1);
  const engine::EnvVars variables = engine::EnvVars::of_process();
  if (variables.has("LOCAL_RANK")) {
    throw UsageError(
        "LOCAL_RANK: is {}: launch was itself started as a rank; start voca-engine train there, or unset it",
        variables.text("LOCAL_RANK"));
  }
  const std::int64_t tasks = variables.number("SLURM_STEP_NUM_TASKS", 1, engine::kMaxRanks).value_or(1);
  if (tasks > 1 && tasks != job.nodes) {
    throw UsageError(
        "--nnodes: is {}, but srun has started launch {} times; start voca-engine train by srun, or launch "
        "once a node",
        job.nodes, tasks);
  }
}

/// Number of visible GPUs; 0 if this build cannot use them.
int usable_gpus() {
  const bool has_backend = !versions()["cuda_toolkit"].get<std::string>().empty();
  return has_backend ? visible_gpus("/dev", std::getenv("CUDA_VISIBLE_DEVICES")) : 0;
}

int ranks_per_node(const LaunchOptions& o, int gpus) {
  switch (o.nproc_per_node.kind) {
    case RanksPerNode::Kind::kAuto:
      return std::max(gpus, 1);
    case RanksPerNode::Kind::kCpu:
      return engine::ThreadLimits::of_process().usable_cpus();
    case RanksPerNode::Kind::kGpu:
      if (gpus > 0) return gpus;
      throw UsageError(
          "--nproc_per_node gpu: no GPU can be used here; voca-engine doctor says why. Give a number for "
          "ranks on the CPU");
    case RanksPerNode::Kind::kNumber:
      break;
  }
  const int max_ranks = engine::kMaxRanks / o.job.nodes;
  if (o.nproc_per_node.number > max_ranks)
    throw UsageError("--nproc_per_node: is {}, must be from 1 to {}", o.nproc_per_node.number, max_ranks);
  return o.nproc_per_node.number;
}

/// The words before and after the first "--".
std::pair<CommandLine, CommandLine> split(CommandLine line) {
  const auto dashes = std::ranges::find(line, std::string_view("--"));
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
std::function<Words()> restart_of_training(const Words& words, const TrainArguments& arguments,
                                           bool on_first_node) {
  const TrainOptions& options = arguments.options;
  // Every run writes this file once it owns its folder.
  const std::filesystem::path config = engine::RunFolder::config_path(run_paths(options).run_dir);
  const std::string at_first = mark_of(config);
  std::vector<OptionSet::Setting> changes;
  if (options.overwrite) changes.emplace_back(options.overwrite, "false");
  if (!options.resume.requested())
    changes.emplace_back(options.resume, Resume{.latest = true, .path = {}}.text());
  Words again = arguments.set.words_with(changes);
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
  if (command.empty() && std::ranges::any_of(own, is_command)) check_command(command);
  if (!set.parse(own)) return;
  Job& job = options.job;
  check(job);
  check_command(command);

  const int gpus = usable_gpus();
  job.ranks_per_node = ranks_per_node(options, gpus);
  job.divide_cores = gpus == 0;
  if (gpus > 0) job.variables[kLaunchedForGpus] = std::to_string(gpus);
  job.grace.after_stop =
      std::chrono::duration_cast<GracePeriods::Duration>(std::chrono::duration<double>(options.grace_period));
  job.executable = "/proc/self/exe";
  job.words = {"voca-engine"};
  job.words.insert(job.words.end(), command.begin(), command.end());

  // Report errors once here rather than on every rank. Output that programs read is relayed as it is.
  const std::string_view name = command[0];
  const CommandLine words = command.subspan(1);
  if (name == "train") {
    TrainArguments arguments;
    if (!read_train_arguments(words, arguments)) return;
    const TrainOptions& train = arguments.options;
    check_train_inputs(train, job.node == 0);
    job.plain_stdout = train.json;
    const std::filesystem::path pointer =
        engine::RunFolder::checkpoint_folder(run_paths(train).run_dir) / engine::kStatePointer;
    job.begins_from = [pointer] { return mark_of(pointer); };
    job.words_of_restart = restart_of_training(job.words, arguments, job.node == 0);
  } else {
    const bool predicts = name == "predict";
    const std::optional<InferenceOptions> inference = predicts ? check_predict(words) : check_eval(words);
    if (!inference) return;
    job.plain_stdout = predicts || inference->json;
  }
  if (const JobEnd end = run_job(job); end.exit_code != 0)
    throw engine::Error(static_cast<engine::ExitCode>(end.exit_code), end.message);
}

}  // namespace voca::tools
