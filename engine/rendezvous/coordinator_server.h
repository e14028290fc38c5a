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

/// The coordinator on its sockets, in a thread of its own.
class CoordinatorServer {
 public:
  /// Listens at once. Throws UsageError when master_addr is no address of this machine that others reach,
  /// IoError when the port cannot be had.
  CoordinatorServer(const RankEnvironment& environment, double rendezvous_seconds);
  /// Serves on until the other ranks have left: as long as a rendezvous may take; a second and a half where
  /// the job has ended or an exception unwinds. Never throws.
  ~CoordinatorServer();
  CoordinatorServer(const CoordinatorServer&) = delete;
  CoordinatorServer& operator=(const CoordinatorServer&) = delete;

  /// The address it listens at.
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
  RunningClock clock_;  // of the coordinator
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
