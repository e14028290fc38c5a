#include "tools/joined_job.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "engine/cuda/communication_stream.h"
#include "engine/cuda_device.h"
#include "engine/device.h"
#include "engine/distributed/communication_error.h"
#include "engine/distributed/nccl_communicator.h"
#include "engine/distributed/ring.h"
#include "engine/error.h"
#include "engine/json.h"
#include "engine/thread.h"
#include "engine/thread_budget.h"
#include "tools/version.h"

namespace voca::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPoll = std::chrono::milliseconds(200);
/// A reason is waited for so long after a collective failed: the watchdog hears of a lost rank within it.
constexpr auto kReasonPatience = std::chrono::seconds(5);

engine::RankFacts facts(Agreement agreement) {
  engine::RankFacts facts = engine::facts_of_this_process();
  facts.must_agree = std::move(agreement);
  facts.must_agree.emplace_back("version", version());
  facts.must_agree.emplace_back("revision of the build", revision());
  return facts;
}

}  // namespace

struct JoinedJob::KeepAlive::Thread {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::jthread thread;
};

JoinedJob::KeepAlive::KeepAlive(JoinedJob& job, const char* what) {
  if (!job.watchdog_) return;
  thread_ = std::make_unique<Thread>();
  thread_->thread = engine::start_thread(
      "signs of life", [&job, what, thread = thread_.get()](const std::stop_token& stop) {
        std::unique_lock lock(thread->mutex);
        do {
          job.watchdog_->doing(what);
        } while (!thread->wake.wait_for(lock, stop, kPoll, [&] { return stop.stop_requested(); }));
      });
}

JoinedJob::KeepAlive::~KeepAlive() = default;

JoinedJob::JoinedJob(const engine::RankEnvironment& environment, Agreement agreement, double comm_timeout)
    : comm_timeout_(comm_timeout),
      meeting_(environment, facts(std::move(agreement)), {.timeout_seconds = comm_timeout}) {
  if (alone()) return;
  watchdog_.emplace(meeting_, comm_timeout);
  ranks_.doing = [this](const char* what) { watchdog_->doing(what); };
  static_cast<void>(engine::check_ring(meeting_));
}

JoinedJob::~JoinedJob() = default;

void JoinedJob::wait_for_first(const char* what) {
  while (!meeting_.store().has(what)) {
    watchdog_->doing(what);
    std::this_thread::sleep_for(kPoll);
  }
}

void JoinedJob::agree(const std::string& about, const Agreement& agreement) {
  if (alone()) return;
  // Rank 0 reads what every rank says and tells all what it found.
  engine::KeyValueStore& store = meeting_.store();
  const engine::Deadline deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                       std::chrono::duration<double>(comm_timeout_));
  const auto key = [&](int rank) { return fmt::format("{} of rank {}", about, rank); };
  nlohmann::ordered_json mine = nlohmann::ordered_json::array();
  for (const auto& [name, value] : agreement) mine.push_back({name, value});
  store.set(key(meeting_.rank()), engine::json_text(mine));
  const std::string verdict = about + " compared";
  if (first()) {
    std::vector<engine::RankFacts> by_rank = meeting_.facts();
    for (int rank = 0; rank < meeting_.world_size(); ++rank) {
      auto& said = by_rank[static_cast<std::size_t>(rank)].must_agree;
      said.clear();
      for (const auto& fact : engine::parse_json(store.get(key(rank), deadline), key(rank)))
        said.emplace_back(fact.at(0).get<std::string>(), fact.at(1).get<std::string>());
    }
    store.set(verdict, engine::difference(by_rank));
  }
  const std::string difference = store.get(verdict, deadline);
  if (difference.empty()) return;
  // This is how every rank is to end, so none leaves before all have read it: a rank that leaves is a lost
  // one.
  const std::string all = about + " read by all";
  if (store.add(about + " read", 1) == meeting_.world_size()) store.set(all, "");
  try {
    static_cast<void>(store.get(all, Clock::now() + kReasonPatience));
  } catch (const engine::CommunicationError&) {
    // One of them is gone already; the difference is still what to say.
  }
  throw engine::UsageError("{}; start every rank on the same", difference);
}

void JoinedJob::connect(engine::Device& device) {
  if (alone()) return;
  const std::chrono::milliseconds timeout(static_cast<std::int64_t>(comm_timeout_ * 1000));
  const bool gpu = device.kind() == engine::DeviceKind::kCuda;
  const auto communicator = [&](const std::string& name) {
    auto host =
        engine::make_gloo_communicator(meeting_.store(), meeting_.rank(), meeting_.world_size(),
                                       {.name = name, .address = meeting_.own_address(), .timeout = timeout});
    if (!gpu) return host;
    engine::NcclOptions options;
    options.name = name;
    options.timeout = timeout;
    return engine::make_nccl_communicator(meeting_.store(), std::move(host), options);
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
  return watchdog_ ? watchdog_->reason(Clock::now() + kReasonPatience) : std::string();
}

void in_job(const Agreement& agreement, double comm_timeout, const std::function<void(JoinedJob&)>& body) {
  std::exception_ptr interrupted;
  {
    JoinedJob job(engine::rank_environment(), agreement, comm_timeout);
    try {
      body(job);
    } catch (const engine::Interrupted&) {
      interrupted = std::current_exception();  // all ranks stop together, and leave in order
    } catch (const engine::CommunicationError&) {
      // A collective sees its neighbour's broken connection; the watchdog knows which rank was lost first.
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

DeviceOptions of_rank(DeviceOptions options, const engine::RankEnvironment& environment) {
  const int ranks = environment.local_world_size;
  if (ranks <= 1) return options;
  const DeviceChoice choice = parse_device(options.device);
  if (choice.kind != DeviceChoice::Kind::kCpu && choice.index < 0) {
    const int gpus = engine::cuda_availability().devices;
    if (gpus > 0 && environment.local_rank >= gpus) {
      throw engine::UsageError(
          "--device {}: rank {} is the {}th of {} on its node, which has {} GPUs; start one rank a GPU, or "
          "give --device cpu",
          options.device, environment.rank, environment.local_rank + 1, ranks, gpus);
    }
    if (gpus > 0) options.device = fmt::format("cuda:{}", environment.local_rank);
  }
  if (options.threads == 0) options.threads = engine::thread_budget(ranks).threads;
  return options;
}

}  // namespace voca::tools
