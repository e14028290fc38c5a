#pragma once

#include <atomic>
#include <map>
#include <string>
#include <thread>

#include "engine/base/running_clock.h"
#include "engine/base/unique_fd.h"
#include "engine/rendezvous/acceptor.h"
#include "engine/rendezvous/coordinator.h"

namespace voca::engine {

/// Serves the coordinator over sockets, in its own thread.
class CoordinatorServer {
 public:
  /// Starts listening. Throws UsageError when master_addr is not an address of this machine that other ranks
  /// can reach, IoError when the port cannot be bound.
  CoordinatorServer(const RankEnvironment& environment, double rendezvous_seconds);
  /// Keeps serving until the other ranks have left, for at most the rendezvous timeout, or 1.5 s if the job
  /// has ended or an exception unwinds. Never throws.
  ~CoordinatorServer();
  CoordinatorServer(const CoordinatorServer&) = delete;
  CoordinatorServer& operator=(const CoordinatorServer&) = delete;

  /// Address that the server listens on.
  [[nodiscard]] std::string host() const { return host_; }

 private:
  struct Connection {
    UniqueFd socket;
    bool is_broken = false;
  };

  void serve();
  bool is_to_stop();
  void turn();
  void read_from(Coordinator::Session session, Connection& connection);
  void write_to(Coordinator::Session session, Connection& connection);
  void close_finished();

  std::atomic<double> linger_seconds_;
  int exceptions_;
  RunningClock clock_;  // time source of the coordinator
  Coordinator coordinator_;
  Acceptor acceptor_;
  std::string host_;
  std::map<Coordinator::Session, Connection> connections_;
  Coordinator::Session next_session_ = 1;
  UniqueFd wake_;
  std::atomic<bool> is_leaving_{false};
  Deadline leave_by_ = Deadline::max();
  std::thread thread_;
};

}  // namespace voca::engine
