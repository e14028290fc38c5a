#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/comm/key_value_store.h"
#include "engine/rendezvous/handshake.h"
#include "engine/rendezvous/memory_store.h"
#include "engine/rendezvous/rank_environment.h"
#include "engine/rendezvous/rank_facts.h"
#include "engine/rendezvous/wire.h"

namespace voca::engine {

/// State that rank 0 keeps for all ranks: which have joined, their facts, the shared dictionary, and each
/// rank's current activity. A state machine without sockets, clock or threads: a session is a number,
/// received() takes input, output() holds the bytes to send, and the caller passes the time.
///
/// A rank has up to two sessions. On one it joins, waits until all ranks have joined, and then sends store
/// requests, one at a time. On the other its watchdog reports its activity. A rank that closes either without
/// a goodbye is lost. A lost, silent or stalled rank ends the job: from then on every request is answered
/// with the reason, and every watchdog is notified. A malformed message loses its (authenticated) sender and
/// affects no other rank's state.
class Coordinator {
 public:
  using Session = std::int64_t;

  /// The rendezvous starts at `now` and fails `rendezvous_seconds` later.
  Coordinator(const RankEnvironment& environment, double rendezvous_seconds, Deadline now);

  /// Verdict on whether to admit a client that has proven its identity.
  [[nodiscard]] Verdict judge(const Identity& identity, Deadline now);
  /// Registers a client that judge() welcomed.
  void admitted(Session session, const Identity& identity, Deadline now);
  void received(Session session, std::string_view bytes, Deadline now);
  void closed(Session session, Deadline now);
  /// Must be called a few times per second, after received input was passed in.
  void tick(Deadline now);
  /// Rank 0 leaves: notifies the watchdogs of the ranks that are still connected.
  void close_down();
  /// Summary of refused clients, included in the message of a failed rendezvous.
  void set_refusals(std::string refusals) { refusals_ = std::move(refusals); }

  /// Bytes to send; the caller erases what it has sent.
  [[nodiscard]] std::string& output(Session session) { return sessions_.at(session).output; }
  /// Whether the session must be closed once its output is sent.
  [[nodiscard]] bool is_over(Session session) const { return sessions_.at(session).is_over; }
  [[nodiscard]] bool has_ended() const { return end_.has_value(); }

 private:
  struct Client {
    Identity identity;
    FrameBuffer input;
    std::string output{};
    bool is_over = false;
    /// Key that a pending get waits for.
    std::string awaited_key{};
    Deadline awaited_until{};
    double silence_seconds = 0;  ///< timeout of a watchdog that has introduced itself
    Deadline heard{};
  };
  struct Rank {
    std::optional<Session> store{};
    std::optional<Session> watch{};
    bool has_joined = false;
    bool has_left = false;
    RankFacts facts{};
    std::string doing{};
    std::uint64_t progress = 0;
    Deadline progressed{};
  };
  struct End {
    ExitCode code;
    std::string reason;
  };

  Rank& rank_of(const Client& client);
  void handle(Client& client, const std::string& payload, Deadline now);
  void handle_store(Client& client, MessageReader& message, Deadline now);
  void handle_watch(Client& client, MessageReader& message, Deadline now);
  void request(Client& client, MessageReader& message, Deadline now);
  void join(Client& client, MessageReader& message, Deadline now);
  void fail(const Client& client, MessageReader& message, Deadline now);
  void answer_waiting(const std::string& key);
  void lose(int rank, const std::string& how, Deadline now);
  void end(ExitCode code, const std::string& reason, Deadline now);
  void say_end(Client& client) const;
  void check_rendezvous(Deadline now);
  void check_watches(Deadline now);
  void send_pulses();
  [[nodiscard]] std::vector<int> missing_ranks() const;
  [[nodiscard]] std::string who_does_what(Deadline now) const;

  RankEnvironment environment_;
  double rendezvous_seconds_;
  Deadline rendezvous_deadline_;
  std::vector<Rank> ranks_;
  std::map<Session, Client> sessions_;
  BoundedDictionary dictionary_;
  bool have_met_ = false;
  std::optional<End> end_;
  Deadline ended_at_{};
  Deadline next_pulse_{};
  std::string refusals_;
};

}  // namespace voca::engine
