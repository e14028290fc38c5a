#include "engine/rendezvous/rendezvous.h"

#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "engine/base/error.h"
#include "engine/base/system_limits.h"
#include "engine/comm/communication_error.h"
#include "engine/rendezvous/memory_store.h"
#include "engine/rendezvous/socket.h"

namespace voca::engine {
namespace {

/// Rank 0 fails a rendezvous at the deadline and notifies all ranks; the others wait this much longer for its
/// message.
constexpr double kGraceSeconds = 1;
constexpr std::size_t kMaxList = std::size_t{1} << 20;

std::vector<RankFacts> read_met(MessageReader& met, const RankEnvironment& environment,
                                const RankFacts& own) {
  std::vector<RankFacts> all;
  for (int rank = 0; rank < environment.world_size; ++rank) {
    RankFacts facts;
    facts.host = met.text(kMaxFact);
    facts.pid = static_cast<std::int64_t>(met.u64());
    facts.must_agree = own.must_agree;  // verified by the coordinator
    all.push_back(std::move(facts));
  }
  met.finish();
  return all;
}

bool receive_notice(Channel& channel, std::string& payload, int rank, Deadline deadline) {
  try {
    return channel.receive(payload, deadline);
  } catch (const Error& error) {
    throw CommunicationError("rank {}, connecting to the others: {}", rank, error.what());
  }
}

/// Sends this rank's facts and waits for all other ranks.
std::vector<RankFacts> introduce(Channel& channel, const RankEnvironment& environment, const RankFacts& own,
                                 double timeout_seconds, Deadline deadline) {
  MessageWriter join(MessageType::kJoin);
  write_facts(join, own);
  channel.send(join.frame(), deadline);
  const Deadline last = seconds_after(deadline, kGraceSeconds);
  std::string missing = "other ranks";
  std::string payload;
  while (receive_notice(channel, payload, environment.rank, last)) {
    MessageReader message(payload);
    if (message.type() == MessageType::kEnd) throw_end(message);
    if (message.type() == MessageType::kMet) return read_met(message, environment, own);
    message.expect(MessageType::kWaiting);
    missing = message.text(kMaxList);
  }
  throw CommunicationError("rank {}: rendezvous timed out: {} of {} did not connect within {:.1f} s",
                           environment.rank, missing, environment.world_size, timeout_seconds);
}

/// Raises the open-file limit for a job's connections, or throws. A rank needs descriptors for its own files,
/// two connections to rank 0 (which holds those of all ranks), and two to every other rank under Gloo.
/// Without this check, ranks would wait for each other until the timeout.
void reserve_descriptors(const RankEnvironment& environment) {
  const auto needed = 24 + 4 * static_cast<rlim_t>(environment.world_size);
  constexpr rlim_t kOfStrangers = 128;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed + kOfStrangers) return;
  limit.rlim_cur = std::min(limit.rlim_max, needed + kOfStrangers);
  static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));
  if (limit.rlim_cur >= needed) return;
  throw IoError("{} open files are allowed, and a rank of {} needs {}; {}", limit.rlim_cur,
                environment.world_size, needed, kRaiseFileLimit);
}

}  // namespace

Rendezvous::Rendezvous(RankEnvironment environment, const RankFacts& facts, const RendezvousOptions& options)
    : environment_(std::move(environment)), options_(options) {
  if (environment_.world_size == 1) {
    facts_ = {facts};
    store_ = std::make_unique<MemoryStore>();
  } else {
    join(facts);
  }
}

Rendezvous::~Rendezvous() = default;

void Rendezvous::join(const RankFacts& facts) {
  reserve_descriptors(environment_);
  const Deadline deadline = seconds_from_now(options_.timeout_seconds);
  if (environment_.rank == 0)
    coordinator_ = std::make_unique<CoordinatorServer>(environment_, options_.timeout_seconds);
  coordinator_address_ = environment_.master_addr;
  if (coordinator_) coordinator_address_ = coordinator_->host();
  Channel channel = connect_to_rank(environment_, Purpose::kStore, 0, coordinator_address_,
                                    environment_.rendezvous_port, deadline);
  own_address_ = local_address(channel.socket()).host();
  facts_ = introduce(channel, environment_, facts, options_.timeout_seconds, deadline);
  auto store = std::make_unique<TcpStore>(std::move(channel), environment_.rank, options_.timeout_seconds);
  coordinator_store_ = store.get();
  store_ = std::move(store);
}

void Rendezvous::leave() {
  coordinator_store_ = nullptr;
  store_.reset();
  coordinator_.reset();
}

std::string Rendezvous::fail(const std::string& why) {
  return coordinator_store_ == nullptr ? why : coordinator_store_->fail(why);
}

}  // namespace voca::engine
