#include "engine/rendezvous/link_probe.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <future>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <utility>

#include "engine/base/digest.h"
#include "engine/base/thread.h"
#include "engine/comm/communication_error.h"
#include "engine/rendezvous/acceptor.h"
#include "engine/rendezvous/socket.h"
#include "engine/rendezvous/wire.h"

namespace voca::engine {
namespace {

constexpr int kPings = 4;
constexpr std::size_t kBulkBytes = std::size_t{256} << 10;
constexpr std::size_t kMaxStrangers = 64;
/// Interval at which a waiting rank checks whether another rank has found a broken link.
constexpr double kSliceSeconds = 0.25;
/// Timeout of one attempt to connect; between attempts the rank checks whether the job has ended.
constexpr double kConnectSeconds = 2;
/// Extra time for messages from distant ranks, so that a rank next to a broken link reports it first.
constexpr double kGraceSeconds = 5;

enum class Direction : int { kWithLinks = 1, kAgainstLinks = -1 };

/// Digest of the facts that all ranks must agree on; part of the token.
std::string digest_of(const RankFacts& facts) {
  Sha256 sha;
  for (const auto& [name, value] : facts.must_agree)
    sha.update(fmt::format("{}:{}{}:{}", name.size(), name, value.size(), value));
  return sha.finish();
}

std::string address_key(int rank) {
  return fmt::format("link/address/{}", rank);
}

std::string link_key(int rank) {
  return fmt::format("link/measured/{}", rank);
}

/// One rank's part of the link probe.
class LinkProbe {
 public:
  LinkProbe(Rendezvous& rendezvous, KeyValueStore& store, const LinkProbeOptions& options)
      : rendezvous_(rendezvous), store_(store), options_(options) {}
  std::vector<ProbedLink> check();

 private:
  std::vector<ProbedLink> run();
  void open_listener();
  [[nodiscard]] Verdict judge(const Identity& identity) const;
  Channel let_previous_in();
  Channel serve_previous();
  Channel connect_to_next(ProbedLink& link);
  double ping(Channel& channel, const ProbedLink& link, const std::string& filling);
  void measure(Channel& channel, ProbedLink& link);
  void pass_token(Direction direction, Channel& out, Channel& in);
  std::string checked_stations(const std::string& payload, Direction direction);
  std::vector<ProbedLink> exchange(const ProbedLink& own);
  std::string receive(Channel& channel, int neighbour);
  void send(Channel& channel, int neighbour, const std::string& frame);
  void stop_where_others_have();
  [[noreturn]] void broke(int neighbour, const CommunicationError& error);
  std::string wait_for(const std::string& key, const std::string& complaint);

  [[nodiscard]] int wrapped(int rank) const {
    return (rank + rendezvous_.world_size()) % rendezvous_.world_size();
  }
  [[nodiscard]] const RankFacts& facts_of(int rank) const {
    return rendezvous_.facts()[static_cast<std::size_t>(rank)];
  }
  [[nodiscard]] std::string name_of(int rank) const {
    return fmt::format("rank {} (host {})", rank, facts_of(rank).host);
  }
  [[nodiscard]] double milliseconds() const { return -1e3 * seconds_until(started_); }
  [[nodiscard]] bool is_late() const { return seconds_until(deadline_) <= 0; }

  Rendezvous& rendezvous_;
  KeyValueStore& store_;
  LinkProbeOptions options_;
  Deadline started_ = std::chrono::steady_clock::now();
  Deadline deadline_ = seconds_from_now(options_.timeout_seconds);
  int rank_ = rendezvous_.rank();
  int next_ = wrapped(rank_ + 1);
  int previous_ = wrapped(rank_ - 1);
  std::string own_place_;  // address that the previous rank connects to
  std::unique_ptr<Acceptor> acceptor_;
  std::atomic<bool> is_stopped_{false};
};

std::vector<ProbedLink> LinkProbe::check() {
  try {
    return run();
  } catch (const CommunicationError& error) {
    // The first rank to find a failure ends the job with it; ranks that fail as a consequence report the same
    // line.
    throw CommunicationError("{}", rendezvous_.fail(error.what()));
  }
}

std::vector<ProbedLink> LinkProbe::run() {
  open_listener();
  // A separate thread accepts and answers the previous rank while this one connects to the next.
  std::packaged_task<Channel()> serving([this] { return serve_previous(); });
  std::future<Channel> incoming = serving.get_future();
  const std::jthread server = start_thread("the check of the paths between ranks", std::move(serving));
  std::optional<Channel> next;
  ProbedLink link;
  try {
    next.emplace(connect_to_next(link));
    measure(*next, link);
  } catch (...) {
    is_stopped_ = true;  // the server thread is joined
    throw;
  }
  Channel previous = incoming.get();
  deadline_ = seconds_after(deadline_, kGraceSeconds);
  pass_token(Direction::kWithLinks, *next, previous);
  pass_token(Direction::kAgainstLinks, previous, *next);
  return exchange(link);
}

void LinkProbe::open_listener() {
  const Address wanted = resolve(rendezvous_.own_address(), 0).front();
  UniqueFd listener = listen_on(wanted);
  if (listener.get() < 0) {
    throw CommunicationError("{} cannot listen at {}: {}", name_of(rank_), wanted.host(),
                             std::strerror(errno));
  }
  const Address address = local_address(listener.get());
  own_place_ = address.text();
  acceptor_ = std::make_unique<Acceptor>(
      std::move(listener), rendezvous_.environment().secret,
      [this](const Identity& identity) { return judge(identity); }, kMaxStrangers);
  store_.set(address_key(rank_), fmt::format("{} {}", address.port(), address.host()));
}

Verdict LinkProbe::judge(const Identity& identity) const {
  const Identity own = identity_of(rendezvous_.environment(), Purpose::kLinkProbe, rank_);
  const bool is_of_job = identity.job == own.job && identity.restart_count == own.restart_count &&
                         identity.world_size == own.world_size;
  if (is_of_job && identity.purpose == Purpose::kLinkProbe && identity.from == previous_ &&
      identity.to == rank_)
    return {};
  return {Outcome::kNotNow, fmt::format("{} expects rank {} of its job here, not rank {} looking for rank {}",
                                        name_of(rank_), previous_, identity.from, identity.to)};
}

void LinkProbe::stop_where_others_have() {
  if (is_stopped_) throw CommunicationError("this rank has stopped");
  static_cast<void>(store_.has("link"));  // throws the reason once the job has ended
}

/// Value that another rank publishes. Throws CommunicationError when a broken link was found first.
std::string LinkProbe::wait_for(const std::string& key, const std::string& complaint) {
  for (;;) {
    try {
      return store_.get(key, std::min(deadline_, seconds_from_now(kSliceSeconds)));
    } catch (const CommunicationError&) {
      stop_where_others_have();
      if (is_late()) throw CommunicationError("{} within {:.0f} ms", complaint, milliseconds());
    }
  }
}

Channel LinkProbe::let_previous_in() {
  for (;;) {
    std::vector<pollfd> waited;
    acceptor_->add_to(waited);
    if (::poll(waited.data(), waited.size(), static_cast<int>(1e3 * kSliceSeconds)) < 0) continue;
    if (std::optional<Acceptor::Admitted> client = acceptor_->process(waited.data()))
      return {std::move(client->socket), client->received, name_of(previous_)};
    stop_where_others_have();
    if (is_late()) {
      throw CommunicationError(
          "the link from {} to {} is blocked: no connection arrived at {} within {:.0f} ms",
          name_of(previous_), name_of(rank_), own_place_, milliseconds());
    }
  }
}

/// Answers the previous rank's pings until it is done; runs on its own thread.
Channel LinkProbe::serve_previous() {
  Channel channel = let_previous_in();
  try {
    for (;;) {
      const std::string payload = receive(channel, previous_);
      MessageReader message(payload);
      if (message.type() == MessageType::kLinked) return channel;
      message.expect(MessageType::kPing);
      send(channel, previous_, MessageWriter(MessageType::kPong).text(message.text(kBulkBytes)).frame());
    }
  } catch (const MalformedMessage& error) {
    throw CommunicationError("the link from {} to {} at {} is mismatched: it carried {}", name_of(previous_),
                             name_of(rank_), own_place_, error.what());
  }
}

Channel LinkProbe::connect_to_next(ProbedLink& link) {
  const std::string told =
      wait_for(address_key(next_), name_of(next_) + " has not opened its end of the link probe");
  int port = 0;
  std::string host;
  std::istringstream(told) >> port >> host;
  link = {rank_, next_, fmt::format("{} port {}", host, port)};
  for (;;) {
    try {
      return connect_to_rank(rendezvous_.environment(), Purpose::kLinkProbe, next_, host, port,
                             std::min(deadline_, seconds_from_now(kConnectSeconds)));
    } catch (const CommunicationError& error) {
      stop_where_others_have();
      if (!is_late()) continue;
      throw CommunicationError("the link from {} to {} at {} is blocked: no connection in {:.0f} ms; {}",
                               name_of(rank_), name_of(next_), link.address, milliseconds(), error.what());
    }
  }
}

void LinkProbe::broke(int neighbour, const CommunicationError& error) {
  stop_where_others_have();
  throw CommunicationError("the link between {} and {} broke after {:.0f} ms: {}", name_of(rank_),
                           name_of(neighbour), milliseconds(), error.what());
}

/// Next payload from a neighbour.
std::string LinkProbe::receive(Channel& channel, int neighbour) {
  std::string payload;
  for (;;) {
    try {
      if (channel.receive(payload, std::min(deadline_, seconds_from_now(kSliceSeconds)))) return payload;
    } catch (const CommunicationError& error) {
      broke(neighbour, error);
    }
    stop_where_others_have();
    if (is_late()) {
      throw CommunicationError(
          "the link between {} and {} is blocked: nothing arrived from {} within {:.0f} ms", name_of(rank_),
          name_of(neighbour), channel.peer(), milliseconds());
    }
  }
}

void LinkProbe::send(Channel& channel, int neighbour, const std::string& frame) {
  try {
    channel.send(frame, deadline_);
  } catch (const CommunicationError& error) {
    broke(neighbour, error);
  }
}

/// Round-trip time in milliseconds.
double LinkProbe::ping(Channel& channel, const ProbedLink& link, const std::string& filling) {
  const auto sent = std::chrono::steady_clock::now();
  send(channel, next_, MessageWriter(MessageType::kPing).text(filling).frame());
  try {
    const std::string payload = receive(channel, next_);
    MessageReader message(payload);
    message.expect(MessageType::kPong);
    if (message.text(kBulkBytes) != filling) throw MalformedMessage("other bytes than were sent");
  } catch (const MalformedMessage& error) {
    throw CommunicationError("the link from {} to {} at {} is mismatched: it returned {}", name_of(rank_),
                             name_of(next_), link.address, error.what());
  }
  return -1e3 * seconds_until(sent);
}

void LinkProbe::measure(Channel& channel, ProbedLink& link) {
  link.round_trip_ms = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kPings; ++i) link.round_trip_ms = std::min(link.round_trip_ms, ping(channel, link, ""));
  link.bulk_round_trip_ms = ping(channel, link, std::string(kBulkBytes, 'v'));
  for (const double measured : {link.round_trip_ms, link.bulk_round_trip_ms}) {
    if (measured > options_.slow_milliseconds) {
      throw CommunicationError(
          "the link from {} to {} at {} is slow: a round trip takes {:.1f} ms, expected at most {:.1f} ms",
          name_of(rank_), name_of(next_), link.address, measured, options_.slow_milliseconds);
    }
  }
  send(channel, next_, MessageWriter(MessageType::kLinked).frame());
}

/// Rank 0 sends the token and receives it back; every other rank appends itself to the token.
void LinkProbe::pass_token(Direction direction, Channel& out, Channel& in) {
  const int step = static_cast<int>(direction);
  const int sender = wrapped(rank_ - step);
  MessageWriter token(MessageType::kToken);
  if (rank_ != 0) token.raw(checked_stations(receive(in, sender), direction));
  const RankFacts& own = facts_of(rank_);
  token.u32(static_cast<std::uint32_t>(rank_)).text(own.host);
  token.u64(static_cast<std::uint64_t>(own.pid)).text(digest_of(own));
  send(out, wrapped(rank_ + step), token.frame());
  if (rank_ == 0) static_cast<void>(checked_stations(receive(in, sender), direction));
}

/// Checks the token's entries, one per rank visited so far and in order, against the facts from the
/// rendezvous. Returns them as they were written.
std::string LinkProbe::checked_stations(const std::string& payload, Direction direction) {
  const int step = static_cast<int>(direction);
  const int stations = rank_ == 0 ? rendezvous_.world_size() : wrapped(step * rank_);
  const std::string digest = digest_of(facts_of(rank_));
  try {
    MessageReader token(payload);
    token.expect(MessageType::kToken);
    for (int i = 0; i < stations; ++i) {
      const int rank = wrapped(step * i);
      const bool is_rank = token.u32() == static_cast<std::uint32_t>(rank);
      const bool is_host = token.text(kMaxFact) == facts_of(rank).host;
      const bool is_process = token.u64() == static_cast<std::uint64_t>(facts_of(rank).pid);
      const bool agrees = token.text(kMaxFact) == digest;
      if (!is_rank || !is_host || !is_process || !agrees) {
        throw MalformedMessage(fmt::format("another {} than the one that joined the rendezvous",
                                           describe(rank, facts_of(rank))));
      }
    }
    token.finish();
  } catch (const MalformedMessage& error) {
    throw CommunicationError("the link between {} and {} is mismatched: its token tells of {}",
                             name_of(rank_), name_of(wrapped(rank_ - step)), error.what());
  }
  return payload.substr(1);
}

/// Publishes this rank's link and waits until all ranks have published theirs: no rank continues alone.
std::vector<ProbedLink> LinkProbe::exchange(const ProbedLink& own) {
  store_.set(link_key(rank_),
             fmt::format("{} {} {}", own.round_trip_ms, own.bulk_round_trip_ms, own.address));
  std::vector<ProbedLink> links;
  for (int rank = 0; rank < rendezvous_.world_size(); ++rank) {
    ProbedLink& link = links.emplace_back();
    link.from = rank;
    link.to = wrapped(rank + 1);
    std::istringstream told(
        wait_for(link_key(rank), name_of(rank) + " has not finished its part of the link probe"));
    told >> link.round_trip_ms >> link.bulk_round_trip_ms >> std::ws;
    std::getline(told, link.address);
  }
  return links;
}

}  // namespace

std::vector<ProbedLink> probe_links(Rendezvous& rendezvous, KeyValueStore& store,
                                    const LinkProbeOptions& options) {
  if (rendezvous.world_size() == 1) return {};
  return LinkProbe(rendezvous, store, options).check();
}

std::vector<ProbedLink> probe_links(Rendezvous& rendezvous, const LinkProbeOptions& options) {
  return probe_links(rendezvous, rendezvous.store(), options);
}

}  // namespace voca::engine
