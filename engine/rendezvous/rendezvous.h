#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/comm/key_value_store.h"
#include "engine/rendezvous/coordinator_server.h"
#include "engine/rendezvous/environment.h"
#include "engine/rendezvous/rank_facts.h"
#include "engine/rendezvous/tcp_store.h"

namespace voca::engine {

struct RendezvousOptions {
  /// How long ranks wait for each other, and for any later answer of rank 0.
  double timeout_seconds = 600;
};

/// All ranks of a job, met: each has proven that it knows the job's secret, all are there, and what must
/// agree does. Lives as long as the job; see docs/rendezvous.md.
class Rendezvous {
 public:
  /// Waits for all ranks. Throws UsageError when ranks differ, naming them and the difference, on every rank;
  /// CommunicationError naming the ranks that did not come in time or were lost. A world of one meets nobody
  /// and opens no port.
  Rendezvous(RankEnvironment environment, const RankFacts& facts, const RendezvousOptions& options = {});
  /// leave(), unless an exception unwinds: then the others are told that this rank was lost.
  ~Rendezvous();
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  /// Shared by all ranks; served by rank 0.
  [[nodiscard]] KeyValueStore& store() { return *store_; }
  /// Ends the job on every rank with this line, which names who is at fault: any request of the store and any
  /// watchdog is answered with it. Returns the line that the job has ended with: another rank may have been
  /// first.
  [[nodiscard]] std::string fail(const std::string& why);
  /// An orderly goodbye, after which there is no store. On rank 0 it waits for the others to leave.
  void leave();
  /// Of every rank, by rank.
  [[nodiscard]] const std::vector<RankFacts>& facts() const { return facts_; }
  [[nodiscard]] int rank() const { return environment_.rank; }
  [[nodiscard]] int world_size() const { return environment_.world_size; }
  [[nodiscard]] const RankEnvironment& environment() const { return environment_; }
  [[nodiscard]] const RendezvousOptions& options() const { return options_; }
  /// This machine's address on the interface that rank 0 is reached by: where this rank's own sockets belong.
  /// A loopback address while there is one node.
  [[nodiscard]] const std::string& own_address() const { return own_address_; }
  /// Where rank 0 is reached.
  [[nodiscard]] const std::string& coordinator_address() const { return coordinator_address_; }

 private:
  void join(const RankFacts& facts);

  RankEnvironment environment_;
  RendezvousOptions options_;
  std::vector<RankFacts> facts_;
  std::string own_address_ = "127.0.0.1";
  std::string coordinator_address_;
  std::unique_ptr<CoordinatorServer> coordinator_;  // of rank 0
  // They go first: the coordinator waits for the other ranks, this one has left.
  std::unique_ptr<KeyValueStore> store_;
  TcpStore* coordinator_store_ = nullptr;  // the same where there is a coordinator
};

}  // namespace voca::engine
