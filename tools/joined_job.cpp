#include "tools/joined_job.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "engine/base/json.h"
#include "engine/base/thread.h"
#include "engine/comm/communication_error.h"
#include "engine/comm/nccl_communicator.h"
#include "engine/comm/nccl_version.h"
#include "engine/core/cuda_device.h"
#include "engine/core/device.h"
#include "engine/core/thread_budget.h"
#include "engine/cuda/communication_stream.h"
#include "engine/rendezvous/link_probe.h"
#include "kernels/cpu/levels.h"
#include "tools/version.h"

namespace voca::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kFirstPoll = std::chrono::milliseconds(1);
constexpr auto kPoll = std::chrono::milliseconds(200);
/// How long to wait for the reason of a failed collective; the watchdog detects a lost rank within this time.
constexpr auto kReasonTimeout = std::chrono::seconds(5);

engine::RankFacts facts(Agreement agreement) {
  engine::RankFacts facts = engine::facts_of_this_process();
  facts.must_agree = std::move(agreement);
  facts.must_agree.emplace_back("version", version());
  facts.must_agree.emplace_back("revision of the build", revision());
  return facts;
}

}  // namespace

JoinedJob::KeepAlive::KeepAlive(JoinedJob& job, const char* what) {
  if (!job.watchdog_) return;
  thread_ = engine::start_thread("signs of life", [this, &job, what](const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    do {
      job.watchdog_->doing(what);
    } while (!wake_.wait_for(lock, stop, kPoll, [&] { return stop.stop_requested(); }));
  });
}

JoinedJob::JoinedJob(const engine::RankEnvironment& environment, Agreement agreement, double comm_timeout)
    : comm_timeout_(comm_timeout),
      rendezvous_(environment, facts(std::move(agreement)), {.timeout_seconds = comm_timeout}) {
  if (alone()) return;
  watchdog_.emplace(rendezvous_, comm_timeout);
  activity_.emplace([this](const char* what) { watchdog_->doing(what); });
  ranks_.doing = [this](const char* what) { watchdog_->doing(what); };
  ranks_.meet = [this](const char* what) { meet(what); };
  static_cast<void>(engine::probe_links(rendezvous_));
}

JoinedJob::~JoinedJob() = default;

void JoinedJob::wait_until(const std::string& what, const std::function<bool()>& condition) {
  const std::string doing = "waiting for the other ranks, " + what;
  for (auto pause = kFirstPoll; !condition(); pause = std::min(2 * pause, kPoll)) {
    watchdog_->doing(doing.c_str());
    std::this_thread::sleep_for(pause);
  }
}

void JoinedJob::meet(const char* what) {
  if (alone()) return;
  const std::string key = fmt::format("came to {}", what);
  const std::int64_t all = ++met_[what] * rendezvous_.world_size();
  watchdog_->doing(what);
  static_cast<void>(rendezvous_.store().add(key, 1));
  wait_until(what, [&] { return rendezvous_.store().add(key, 0) >= all; });
}

void JoinedJob::compare(const std::string& about, const std::string& mine, const Judge& judge) {
  if (alone()) return;
  engine::KeyValueStore& store = rendezvous_.store();
  const engine::Deadline deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                       std::chrono::duration<double>(comm_timeout_));
  const auto key = [&](int rank) { return fmt::format("{} of rank {}", about, rank); };
  meet(about.c_str());  // ranks may arrive here at very different times
  store.set(key(rendezvous_.rank()), mine);
  const std::string verdict_key = about + " compared";
  if (first()) {
    std::vector<std::string> by_rank;
    for (int rank = 0; rank < rendezvous_.world_size(); ++rank)
      by_rank.push_back(store.get(key(rank), deadline));
    store.set(verdict_key, judge(by_rank));
  }
  const std::string verdict = store.get(verdict_key, deadline);
  if (verdict.empty()) return;
  // Every rank must throw the verdict, so none leaves before all have read it: a rank that leaves counts as
  // lost.
  const std::string all = about + " read by all";
  if (store.add(about + " read", 1) == rendezvous_.world_size()) store.set(all, "");
  try {
    static_cast<void>(store.get(all, Clock::now() + kReasonTimeout));
  } catch (const engine::CommunicationError&) {
    // A rank is gone already; the verdict is still the error to report.
  }
  throw engine::UsageError("{}", verdict);
}

void JoinedJob::agree(const std::string& about, const Agreement& agreement) {
  nlohmann::ordered_json mine = nlohmann::ordered_json::array();
  for (const auto& [name, value] : agreement) mine.push_back({name, value});
  compare(about, engine::json_text(mine), [&](const std::vector<std::string>& by_rank) {
    std::vector<engine::RankFacts> facts = rendezvous_.facts();
    for (std::size_t rank = 0; rank < facts.size(); ++rank) {
      facts[rank].must_agree.clear();
      for (const auto& fact : engine::parse_json(by_rank[rank], fmt::format("{} of rank {}", about, rank)))
        facts[rank].must_agree.emplace_back(fact.at(0).get<std::string>(), fact.at(1).get<std::string>());
    }
    const std::string difference = engine::difference(facts);
    return difference.empty() ? difference : difference + "; start every rank on the same";
  });
}

void JoinedJob::check_nccl() const {
  const std::optional<int> number = engine::find_nccl();
  if (!number) {
    throw engine::UsageError(
        "several GPUs need NCCL, and libnccl.so.2 cannot be opened here; install libnccl2 or add its folder "
        "to LD_LIBRARY_PATH");
  }
  const engine::NcclVersion version = engine::nccl_version(*number);
  if (!version.usable) throw engine::UsageError("NCCL {}: {}", version.text, version.advice);
  if (!version.advice.empty() && first()) spdlog::warn("NCCL {}: {}", version.text, version.advice);
}

void JoinedJob::agree_on_devices(const engine::Device& device, const DeviceOptions& options) {
  if (alone()) return;
  const bool asked_for_cpu = options.choice.kind == DeviceChoice::Kind::kCpu;
  const bool gpu = device.kind() == engine::DeviceKind::kCuda;
  agree_on_devices({.host = engine::facts_of_this_process().host,
                    .kind = device.kind(),
                    .uuid = gpu ? engine::cuda_device_uuid() : "",
                    .no_gpu = gpu || asked_for_cpu ? "" : engine::cuda_availability().reason,
                    .kernels = gpu ? "" : kernels::cpu::instruction_set(),
                    .multiply_adds = gpu || kernels::cpu::multiply_adds()});
  if (gpu) check_nccl();
}

void JoinedJob::agree_on_devices(const RankDevice& mine) {
  compare("the devices", text_of(mine), [](const std::vector<std::string>& by_rank) {
    std::vector<RankDevice> devices(by_rank.size());
    std::ranges::transform(by_rank, devices.begin(), rank_device_of);
    return device_conflict(devices);
  });
}

engine::AlgorithmSharing JoinedJob::algorithm_sharing() {
  if (alone()) return {};
  const auto key = [this] { return fmt::format("matrix products {}", ++algorithms_told_); };
  if (first())
    return {.tell = [this, key](const std::string& text) { rendezvous_.store().set(key(), text); }};
  return {.chooses = false, .hear = [this, key] {
            const std::string one = key();
            wait_until("which choose algorithms", [&] { return rendezvous_.store().has(one); });
            return rendezvous_.store().get(one, Clock::now());
          }};
}

void JoinedJob::connect(engine::Device& device) {
  if (alone()) return;
  meet("connecting the ranks");
  const std::chrono::milliseconds timeout(static_cast<std::int64_t>(comm_timeout_ * 1000));
  const bool gpu = device.kind() == engine::DeviceKind::kCuda;
  const auto communicator = [&](const std::string& name) {
    auto host = engine::make_gloo_communicator(
        rendezvous_.store(), rendezvous_.rank(), rendezvous_.world_size(),
        {.name = name, .address = rendezvous_.own_address(), .timeout = timeout});
    if (!gpu) return host;
    engine::NcclOptions options;
    options.name = name;
    options.timeout = timeout;
    return engine::make_nccl_communicator(rendezvous_.store(), std::move(host), options);
  };
  main_ = communicator("main");
  if (gpu) {
    stream_ = engine::make_cuda_communication_stream();
  } else {
    gradients_ = communicator("gradients");
  }
  ranks_.main = main_.get();
  ranks_.gradients = gpu ? main_.get() : gradients_.get();
  ranks_.stream = stream_.get();
  engine::warm_up(ranks_, device);
}

void JoinedJob::fail(const std::string& why) {
  if (watchdog_) watchdog_->fail(why);
}

std::string JoinedJob::reason() {
  return watchdog_ ? watchdog_->reason(Clock::now() + kReasonTimeout) : std::string();
}

void in_job(const Agreement& agreement, double comm_timeout, const std::function<void(JoinedJob&)>& body) {
  std::exception_ptr interrupted;
  {
    JoinedJob job(engine::rank_environment(), agreement, comm_timeout);
    try {
      body(job);
    } catch (const engine::Interrupted&) {
      interrupted = std::current_exception();  // all ranks stop together and disconnect in order
    } catch (const engine::CommunicationError&) {
      // A collective fails on the broken connection of a neighbour; the watchdog knows which rank was lost
      // first.
      const std::string reason = job.reason();
      if (!reason.empty()) throw engine::CommunicationError("{}", reason);
      throw;
    } catch (const std::exception& error) {
      job.fail(error.what());
      throw;
    }
  }
  if (interrupted) std::rethrow_exception(interrupted);
}

DeviceOptions of_rank(DeviceOptions options, JoinedJob& job) {
  const engine::RankEnvironment& environment = job.environment();
  options.cuda.sharing = job.algorithm_sharing();
  const int ranks = environment.local_world_size;
  if (ranks <= 1) return options;
  const DeviceChoice choice = options.choice;
  const int gpus =
      choice.kind == DeviceChoice::Kind::kCpu || choice.index >= 0 ? 0 : engine::cuda_availability().devices;
  if (gpus > 0) {
    const std::optional<int> mine = gpu_of_rank(environment.local_rank, ranks, gpus);
    if (!mine) {
      throw engine::UsageError(
          "--device {}: rank {} is number {} of {} on its node, which has {} GPUs; start one rank a GPU, or "
          "give --device cpu",
          choice.text(), environment.rank, environment.local_rank + 1, ranks, gpus);
    }
    options.choice = {.kind = DeviceChoice::Kind::kCuda, .index = *mine};
  }
  if (options.threads == 0) options.threads = engine::thread_budget(ranks).threads;
  return options;
}

}  // namespace voca::tools
