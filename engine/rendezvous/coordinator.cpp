#include "engine/rendezvous/coordinator.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace voca::engine {
namespace {

using std::chrono::milliseconds;

/// Largest request: a key with its value, or a rank's facts, and a few numbers.
constexpr std::size_t kMaxRequest = BoundedDictionary::kMaxValue + 1024;
/// A client has one response outstanding at a time; one that leaves more than this unread is not reading.
constexpr std::size_t kMaxUnread = 4 * kMaxRequest;
constexpr std::size_t kMaxDoing = 256;
constexpr std::uint32_t kMaxWaitMilliseconds = 60'000;
constexpr milliseconds kPulseInterval{500};
/// Rank 0's watchdog is notified of the end last, before its process exits and takes the coordinator with it.
constexpr milliseconds kHeadStart{1500};
/// Ranks listed in one message.
constexpr std::size_t kMaxTold = 16;

double seconds_between(Deadline from, Deadline to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

Coordinator::Coordinator(const RankEnvironment& environment, double rendezvous_seconds, Deadline now)
    : environment_(environment),
      rendezvous_seconds_(rendezvous_seconds),
      rendezvous_deadline_(now + std::chrono::duration_cast<Deadline::duration>(
                                     std::chrono::duration<double>(rendezvous_seconds))),
      ranks_(static_cast<std::size_t>(environment.world_size)),
      next_pulse_(now) {}

Coordinator::Rank& Coordinator::rank_of(const Client& client) {
  return ranks_[static_cast<std::size_t>(client.identity.from)];
}

Verdict Coordinator::judge(const Identity& identity, Deadline now) {
  const Identity own = identity_of(environment_, identity.purpose, 0);
  if (identity.job != own.job)
    return {Outcome::kNotNow, "another job of this user has the port: give each job its MASTER_PORT"};
  if (identity.restart_count != own.restart_count) {
    return {Outcome::kNotNow, fmt::format("rank 0 is at restart {}, rank {} at restart {}", own.restart_count,
                                          identity.from, identity.restart_count)};
  }
  if (identity.to != 0 || identity.purpose == Purpose::kLinkProbe)
    return {Outcome::kNotNow, fmt::format("rank 0 answers here, not rank {}'s link probe", identity.to)};
  if (identity.world_size != own.world_size || identity.from >= own.world_size) {
    const std::string reason = fmt::format("rank {} differs from rank 0 in WORLD_SIZE: {}, {}", identity.from,
                                           identity.world_size, own.world_size);
    if (!have_met_) end(ExitCode::kUsage, reason, now);
    return {Outcome::kMismatch, reason};
  }
  if (end_) {
    return {end_->code == ExitCode::kUsage ? Outcome::kMismatch : Outcome::kEnded, end_->reason};
  }
  const Rank& rank = ranks_[static_cast<std::size_t>(identity.from)];
  const bool is_watch = identity.purpose == Purpose::kWatch;
  if ((is_watch ? rank.watch : rank.store).has_value())
    return {Outcome::kNotNow, fmt::format("there is a rank {} already", identity.from)};
  if (rank.has_left || is_watch != have_met_)
    return {Outcome::kNotNow, is_watch ? "the ranks have not met" : "the ranks have met without it"};
  return {};
}

void Coordinator::admitted(Session session, const Identity& identity, Deadline now) {
  Client& client =
      sessions_.insert_or_assign(session, Client{identity, FrameBuffer(kMaxRequest)}).first->second;
  client.heard = now;
  Rank& rank = rank_of(client);
  (identity.purpose == Purpose::kWatch ? rank.watch : rank.store) = session;
}

void Coordinator::received(Session session, std::string_view bytes, Deadline now) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end() || found->second.is_over) return;
  Client& client = found->second;
  client.heard = now;
  client.input.append(bytes);
  try {
    std::string payload;
    while (!client.is_over && client.awaited_key.empty() && client.input.next(payload))
      handle(client, payload, now);
    if (client.input.size() > kMaxRequest + 4 || client.output.size() > kMaxUnread)
      throw MalformedMessage("more than one request at a time");
  } catch (const MalformedMessage& error) {
    client.is_over = true;
    lose(client.identity.from, fmt::format("was dropped, for it sent {}", error.what()), now);
  }
}

void Coordinator::handle(Client& client, const std::string& payload, Deadline now) {
  MessageReader message(payload);
  if (message.type() == MessageType::kGoodbye) {
    message.finish();
    client.is_over = true;
    if (client.identity.purpose == Purpose::kStore) rank_of(client).has_left = true;
    return;
  }
  if (client.identity.purpose == Purpose::kWatch) {
    handle_watch(client, message, now);
  } else {
    handle_store(client, message, now);
  }
}

void Coordinator::handle_store(Client& client, MessageReader& message, Deadline now) {
  if (message.type() == MessageType::kJoin) {
    join(client, message, now);
  } else if (message.type() == MessageType::kFailed) {
    fail(client, message, now);
    say_end(client);
  } else if (!have_met_ && !end_) {
    throw MalformedMessage("a request before the ranks have met");
  } else if (end_) {
    say_end(client);
  } else {
    try {
      request(client, message, now);
    } catch (const InternalError& error) {
      client.output += MessageWriter(MessageType::kRefused).text(error.what()).frame();
    }
  }
}

void Coordinator::join(Client& client, MessageReader& message, Deadline now) {
  Rank& rank = rank_of(client);
  RankFacts facts = read_facts(message);
  message.finish();
  if (rank.has_joined) throw MalformedMessage("a second introduction");
  if (end_) return say_end(client);
  rank.facts = std::move(facts);
  rank.has_joined = true;
  rank.progressed = now;
  rank.doing = "the rendezvous";
  if (!missing_ranks().empty()) return;

  std::vector<RankFacts> by_rank;
  for (const Rank& one : ranks_) by_rank.push_back(one.facts);
  const std::string differences = difference(by_rank);
  if (!differences.empty()) return end(ExitCode::kUsage, differences, now);
  have_met_ = true;
  MessageWriter met(MessageType::kMet);
  for (const RankFacts& one : by_rank) met.text(one.host).u64(static_cast<std::uint64_t>(one.pid));
  const std::string frame = met.frame();
  for (auto& [session, other] : sessions_)
    if (other.identity.purpose == Purpose::kStore) other.output += frame;
}

void Coordinator::request(Client& client, MessageReader& message, Deadline now) {
  const std::string key = message.text(BoundedDictionary::kMaxKey);
  switch (message.type()) {
    case MessageType::kSet: {
      const std::string value = message.text(BoundedDictionary::kMaxValue);
      message.finish();
      dictionary_.set(key, value);
      client.output += MessageWriter(MessageType::kDone).frame();
      return answer_waiting(key);
    }
    case MessageType::kAdd: {
      const auto amount = static_cast<std::int64_t>(message.u64());
      message.finish();
      const auto sum = static_cast<std::uint64_t>(dictionary_.add(key, amount));
      client.output += MessageWriter(MessageType::kNumber).u64(sum).frame();
      return answer_waiting(key);
    }
    case MessageType::kHas: {
      message.finish();
      const std::uint64_t has = dictionary_.find(key) != nullptr ? 1 : 0;
      client.output += MessageWriter(MessageType::kNumber).u64(has).frame();
      return;
    }
    case MessageType::kGet: {
      const std::uint32_t wait = std::min(message.u32(), kMaxWaitMilliseconds);
      message.finish();
      if (key.empty()) throw InternalError("the ranks' store: a key of 0 bytes, expected at least 1");
      client.awaited_key = key;
      client.awaited_until = now + milliseconds(wait);
      return answer_waiting(key);
    }
    default:
      throw MalformedMessage(fmt::format("a request of type {}", static_cast<int>(message.type())));
  }
}

void Coordinator::fail(const Client& client, MessageReader& message, Deadline now) {
  const std::string why = message.text(kMaxReason);
  message.finish();
  if (!rank_of(client).has_joined) throw MalformedMessage("a failure before the introduction");
  rank_of(client).has_left = true;
  end(ExitCode::kIo, why, now);
}

void Coordinator::answer_waiting(const std::string& key) {
  const std::string* const value = dictionary_.find(key);
  if (value == nullptr) return;
  for (auto& [session, client] : sessions_) {
    if (client.awaited_key != key) continue;
    client.awaited_key.clear();
    client.output += MessageWriter(MessageType::kValue).text(*value).frame();
  }
}

void Coordinator::handle_watch(Client& client, MessageReader& message, Deadline now) {
  Rank& rank = rank_of(client);
  switch (message.type()) {
    case MessageType::kWatch: {
      const std::uint32_t milliseconds_allowed = message.u32();
      message.finish();
      if (milliseconds_allowed == 0) throw MalformedMessage("a time-out of 0");
      client.silence_seconds = milliseconds_allowed / 1e3;
      rank.progressed = now;
      return;
    }
    case MessageType::kHeartbeat: {
      const std::uint64_t progress = message.u64();
      rank.doing = message.text(kMaxDoing);
      message.finish();
      if (progress != rank.progress) rank.progressed = now;
      rank.progress = progress;
      return;
    }
    case MessageType::kFailed:
      fail(client, message, now);
      client.is_over = true;
      return;
    default:
      throw MalformedMessage(fmt::format("a report of type {}", static_cast<int>(message.type())));
  }
}

void Coordinator::closed(Session session, Deadline now) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  const Client client = std::move(found->second);
  sessions_.erase(found);
  Rank& rank = rank_of(client);
  const bool is_watch = client.identity.purpose == Purpose::kWatch;
  (is_watch ? rank.watch : rank.store).reset();
  if (!client.is_over) lose(client.identity.from, "was lost", now);
}

void Coordinator::lose(int number, const std::string& how, Deadline now) {
  const Rank& rank = ranks_[static_cast<std::size_t>(number)];
  // A rank that has not joined may reconnect.
  if (!rank.has_joined || rank.has_left) return;
  end(ExitCode::kIo, fmt::format("{} {}; it was last at: {}", describe(number, rank.facts), how, rank.doing),
      now);
}

void Coordinator::end(ExitCode code, const std::string& reason, Deadline now) {
  if (end_) return;
  end_ = End{code, reason.substr(0, kMaxReason)};
  ended_at_ = now;
  for (auto& [session, client] : sessions_) {
    const bool is_watch = client.identity.purpose == Purpose::kWatch;
    const bool waits = have_met_ ? !client.awaited_key.empty() : rank_of(client).has_joined;
    client.awaited_key.clear();
    if (is_watch ? client.identity.from != 0 : waits) say_end(client);
  }
}

void Coordinator::say_end(Client& client) const {
  if (client.is_over) return;
  client.output +=
      MessageWriter(MessageType::kEnd).u8(static_cast<std::uint8_t>(end_->code)).text(end_->reason).frame();
}

void Coordinator::tick(Deadline now) {
  for (auto& [session, client] : sessions_) {
    if (client.awaited_key.empty() || now < client.awaited_until) continue;
    client.awaited_key.clear();
    client.output += MessageWriter(MessageType::kAbsent).frame();
  }
  if (!end_) {
    if (have_met_) {
      check_watches(now);
    } else {
      check_rendezvous(now);
    }
  }
  if (now >= next_pulse_) {
    next_pulse_ = now + kPulseInterval;
    send_pulses();
  }
  const Rank& own = ranks_.front();
  if (!end_ || !own.watch || ended_at_ == Deadline::max()) return;
  const bool others_are_gone = std::none_of(ranks_.begin() + 1, ranks_.end(),
                                            [](const Rank& rank) { return rank.watch || rank.store; });
  if (others_are_gone || now >= ended_at_ + kHeadStart) {
    say_end(sessions_.at(*own.watch));
    ended_at_ = Deadline::max();  // rank 0 has been notified
  }
}

void Coordinator::check_rendezvous(Deadline now) {
  if (now < rendezvous_deadline_) return;
  const std::string came = refusals_.empty() ? "" : fmt::format("; connections were refused, {}", refusals_);
  end(ExitCode::kIo,
      fmt::format("rendezvous timed out: {} of {} did not connect within {:.1f} s{}",
                  list_of_ranks(missing_ranks()), ranks_.size(), rendezvous_seconds_, came),
      now);
}

void Coordinator::check_watches(Deadline now) {
  for (auto& [session, client] : sessions_) {
    if (client.silence_seconds <= 0 || client.is_over) continue;
    const Rank& rank = rank_of(client);
    const double silent = seconds_between(client.heard, now);
    const double idle = seconds_between(rank.progressed, now);
    if (silent > client.silence_seconds)
      return end(ExitCode::kIo, silence(client.identity.from, rank.facts, silent, rank.doing), now);
    if (idle > client.silence_seconds) {
      return end(ExitCode::kIo,
                 fmt::format("{} has made no progress for {:.1f} s; {}",
                             describe(client.identity.from, rank.facts), idle, who_does_what(now)),
                 now);
    }
  }
}

std::string Coordinator::who_does_what(Deadline now) const {
  std::string line;
  for (std::size_t i = 0; i < std::min(ranks_.size(), kMaxTold); ++i) {
    line += fmt::format("{}rank {} at {} for {:.1f} s", i == 0 ? "" : ", ", i, ranks_[i].doing,
                        seconds_between(ranks_[i].progressed, now));
  }
  if (ranks_.size() > kMaxTold) line += fmt::format(", and {} more ranks", ranks_.size() - kMaxTold);
  return line;
}

void Coordinator::send_pulses() {
  std::string waiting;
  if (!have_met_ && !end_)
    waiting = MessageWriter(MessageType::kWaiting).text(list_of_ranks(missing_ranks())).frame();
  const std::string pulse = MessageWriter(MessageType::kPulse).text(ranks_.front().doing).frame();
  for (auto& [session, client] : sessions_) {
    // A client that does not read gets no further pulses.
    if (client.is_over || !client.output.empty()) continue;
    if (client.identity.purpose == Purpose::kWatch) {
      client.output += pulse;
    } else if (rank_of(client).has_joined) {
      client.output += waiting;
    }
  }
}

void Coordinator::close_down() {
  for (auto& [session, client] : sessions_) {
    if (client.identity.purpose == Purpose::kWatch && !client.is_over)
      client.output += MessageWriter(MessageType::kClosing).frame();
    client.is_over = true;
  }
}

std::vector<int> Coordinator::missing_ranks() const {
  std::vector<int> missing;
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
    if (!ranks_[rank].has_joined) missing.push_back(static_cast<int>(rank));
  return missing;
}

}  // namespace voca::engine
