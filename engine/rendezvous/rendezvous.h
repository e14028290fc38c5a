#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/comm/key_value_store.h"
#include "engine/rendezvous/coordinator_server.h"
#include "engine/rendezvous/rank_environment.h"
#include "engine/rendezvous/rank_facts.h"
#include "engine/rendezvous/tcp_store.h"

namespace voca::engine {

struct RendezvousOptions {
  /// Timeout for ranks to wait for each other, and for any later response of rank 0.
  double timeout_seconds = 600;
};

/// All ranks of a job, connected: each has proven that it knows the job's secret, and all agree on the facts
/// that must agree. Lives as long as the job; see docs/rendezvous.md.
class Rendezvous {
 public:
  /// Waits for all ranks. Throws UsageError on every rank when ranks differ, naming them and the difference;
  /// CommunicationError naming the ranks that did not arrive in time or were lost. A world of one connects to
  /// no one and opens no port.
  Rendezvous(RankEnvironment environment, const RankFacts& facts, const RendezvousOptions& options = {});
  /// Calls leave(), unless an exception unwinds: in that case the other ranks are notified that this rank was
  /// lost.
  ~Rendezvous();
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  /// Store shared by all ranks and served by rank 0.
  [[nodiscard]] KeyValueStore& store() { return *store_; }
  /// Ends the job on every rank with this line, which names the rank at fault: every later store request and
  /// every watchdog gets it. Returns the line that the job has actually ended with, since another rank may
  /// have been first.
  [[nodiscard]] std::string fail(const std::string& why);
  /// Leaves the job in order; the store is gone afterwards. On rank 0 it waits for the others to leave.
  void leave();
  /// Facts of all ranks, indexed by rank.
  [[nodiscard]] const std::vector<RankFacts>& facts() const { return facts_; }
  [[nodiscard]] int rank() const { return environment_.rank; }
  [[nodiscard]] int world_size() const { return environment_.world_size; }
  [[nodiscard]] const RankEnvironment& environment() const { return environment_; }
  [[nodiscard]] const RendezvousOptions& options() const { return options_; }
  /// This machine's address on the interface through which it reaches rank 0; this rank's own sockets bind to
  /// it. A loopback address if there is one node.
  [[nodiscard]] const std::string& own_address() const { return own_address_; }
  /// Address of rank 0.
  [[nodiscard]] const std::string& coordinator_address() const { return coordinator_address_; }

 private:
  void join(const RankFacts& facts);

  RankEnvironment environment_;
  RendezvousOptions options_;
  std::vector<RankFacts> facts_;
  std::string own_address_ = "127.0.0.1";
  std::string coordinator_address_;
  std::unique_ptr<CoordinatorServer> coordinator_;  // null except on rank 0
  // The store is destroyed before the coordinator, which then waits for the other ranks only.
  std::unique_ptr<KeyValueStore> store_;
  TcpStore* coordinator_store_ = nullptr;  // `store_`, if there is a coordinator
};

}  // namespace voca::engine
