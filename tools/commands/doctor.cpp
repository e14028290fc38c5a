#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/base/atomic_file.h"
#include "engine/base/error.h"
#include "engine/base/memory_limits.h"
#include "engine/base/terminal.h"
#include "engine/comm/communicator.h"
#include "engine/core/cuda_device.h"
#include "engine/core/device.h"
#include "engine/core/thread_budget.h"
#include "engine/rendezvous/rank_environment.h"
#include "tools/commands.h"
#include "tools/gpu_findings.h"
#include "tools/options/device_options.h"
#include "tools/result.h"
#include "tools/version.h"

namespace voca::tools {
namespace {

using nlohmann::ordered_json;

Finding check_build() {
  const ordered_json v = versions();
  return {"build", Verdict::kOk,
          fmt::format("{}, {}, {}, kernels {}", version_line(), v["compiler"].get<std::string>(),
                      v["build_type"].get<std::string>(), v["kernels"].get<std::string>())};
}

Finding check_kernels() {
  try {
    return {"kernels", Verdict::kOk, engine::make_cpu_device(0)->description()};
  } catch (const engine::Error& error) {
    return {"kernels", Verdict::kProblem, error.what()};
  }
}

/// Number of ranks on the node of this process.
int ranks_here() {
  try {
    return engine::rank_environment().local_world_size;
  } catch (const engine::Error&) {
    return 1;  // check_ranks() reports the error
  }
}

/// Judges the number of threads that `train --threads 0` uses.
Finding check_threads() {
  const engine::ThreadLimits limits = engine::ThreadLimits::of_process();
  const engine::ThreadBudget budget = engine::thread_budget(ranks_here(), limits);
  const std::string text = fmt::format("{} thread{} for kernels: {}", budget.threads,
                                       budget.threads == 1 ? "" : "s", budget.reason);
  const std::string online = fmt::format("; {} online", limits.online);
  if (budget.threads == limits.online) return {"cores", Verdict::kOk, text};
  if (budget.threads < limits.online)
    return {"cores", Verdict::kWarning, text + online + "; --threads N overrides it"};
  return {"cores", Verdict::kWarning, text + online + "; more threads than cores wait for each other"};
}

Finding check_memory() {
  constexpr std::size_t kPlenty = std::size_t{2} << 30;
  const engine::FreeMemory free = engine::free_host_memory();
  if (free.bytes >= kPlenty) return {"memory", Verdict::kOk, free.text()};
  return {"memory", Verdict::kWarning, free.text() + "; ask voca-engine plan whether a training fits"};
}

Finding check_disk(const std::filesystem::path& folder) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error) return {"disk", Verdict::kProblem, fmt::format("{}: {}", folder.string(), error.message())};
  const double gib = static_cast<double>(space.available) / 1073741824.0;
  const std::filesystem::path probe = folder / fmt::format(".voca-doctor-{}", ::getpid());
  try {
    engine::write_file_atomically(probe, "probe");
    std::filesystem::remove(probe, error);
  } catch (const engine::Error& failure) {
    return {"disk", Verdict::kProblem,
            fmt::format("{}; run where you may write, or name other folders", failure.what())};
  }
  const std::string text =
      fmt::format("{}: {:.1f} GiB free, a file written, synced and renamed", folder.string(), gib);
  if (gib >= 5) return {"disk", Verdict::kOk, text};
  return {"disk", Verdict::kWarning, text + "; resume states take three times the weights, --keep of them"};
}

Finding check_limits() {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  const std::string text = files.rlim_cur == RLIM_INFINITY ? "open files: no limit"
                                                           : fmt::format("open files: {}", files.rlim_cur);
  if (files.rlim_cur >= 256) return {"limits", Verdict::kOk, text};
  return {"limits", Verdict::kWarning, text + "; raise it with ulimit -n 1024"};
}

Finding check_backend() {
  const std::string toolkit = versions()["cuda_toolkit"].get<std::string>();
  const std::string build =
      toolkit.empty() ? "built without CUDA" : fmt::format("built with CUDA {}", toolkit);
  const engine::CudaAvailability cuda = engine::cuda_availability();
  if (cuda.devices > 0) {
    return {"backend", Verdict::kOk,
            fmt::format("{}; computes on GPU {} unless --device says otherwise", build, cuda.first)};
  }
  if (const std::string promise = promised_gpus(engine::EnvVars::of_process()); !promise.empty()) {
    return {"backend", Verdict::kWarning,
            fmt::format("{}; no GPU can be used, though {} says to compute on one, so that only --device cpu "
                        "computes: {}",
                        build, promise, cuda.reason)};
  }
  if (toolkit.empty()) return {"backend", Verdict::kOk, build + "; computes on the CPU"};
  return {"backend", Verdict::kOk, fmt::format("{}; computes on the CPU: {}", build, cuda.reason)};
}

Finding check_ranks() {
  try {
    const engine::RankEnvironment environment = engine::rank_environment();
    const std::string over = engine::with_gloo() ? "ranks are joined over TCP by Gloo, GPUs by NCCL"
                                                 : "built without Gloo: trains on one rank";
    if (environment.world_size == 1) return {"ranks", Verdict::kOk, "one here; " + over};
    return {"ranks", engine::with_gloo() ? Verdict::kOk : Verdict::kProblem,
            fmt::format("rank {} of {} here, rank 0 listens at {} port {}; {}", environment.rank,
                        environment.world_size, environment.master_addr, environment.rendezvous_port, over)};
  } catch (const engine::Error& error) {
    return {"ranks", Verdict::kProblem, error.what()};
  }
}

}  // namespace

void doctor(CommandLine command_line) {
  bool json = false;
  std::string folder = ".";
  OptionSet set("doctor", "Checks this build and this machine; exit 70 where something is broken.");
  set.add(folder, {"folder", "DIR", "where runs will write"});
  set.add(json, {"json", "", "print the findings as one JSON object"});
  if (!set.parse(command_line)) return;
  std::vector<Finding> findings{check_build(),      check_kernels(), check_threads(), check_memory(),
                                check_disk(folder), check_limits(),  check_backend(), check_ranks()};
  for (Finding& finding : judge_gpus(look_for_gpus())) findings.push_back(std::move(finding));
  constexpr std::size_t kTextColumn = 22;
  const int columns = engine::terminal_columns(STDOUT_FILENO);
  ordered_json report = ordered_json::object();
  for (const Finding& finding : findings) {
    report[finding.what] = {{"verdict", engine::name_of(finding.verdict)}, {"text", finding.text}};
    if (json) continue;
    const std::string line =
        fmt::format("{:<8} {:<12} {}\n", engine::name_of(finding.verdict), finding.what, finding.text);
    print_text(engine::wrapped(line, columns, kTextColumn));
  }
  if (json) print_json({{"versions", versions()}, {"findings", report}});
  const auto problem = std::ranges::find(findings, Verdict::kProblem, &Finding::verdict);
  if (problem != findings.end()) throw engine::InternalError("doctor: {}: {}", problem->what, problem->text);
}

}  // namespace voca::tools
