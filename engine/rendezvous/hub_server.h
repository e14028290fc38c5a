#pragma once

#include <atomic>
#include <map>
#include <string>
#include <thread>

#include "engine/base/descriptor.h"
#include "engine/base/running_clock.h"
#include "engine/rendezvous/acceptor.h"
#include "engine/rendezvous/hub.h"

namespace voca::engine {

/// The hub on its sockets, in a thread of its own.
class HubServer {
 public:
  /// Listens at once. Throws UsageError when master_addr is no address of this machine that others reach,
  /// IoError when the port cannot be had.
  HubServer(const RankEnvironment& environment, double meeting_seconds);
  /// Serves on until the other ranks have left: as long as a meeting may take; a second and a half where the
  /// job has ended or an exception unwinds. Never throws.
  ~HubServer();
  HubServer(const HubServer&) = delete;
  HubServer& operator=(const HubServer&) = delete;

  /// The address it listens at.
  [[nodiscard]] std::string host() const { return host_; }

 private:
  struct Connection {
    Descriptor socket;
    bool is_broken = false;
  };

  void serve();
  bool is_to_stop();
  void turn();
  void read_from(Hub::Session session, Connection& connection);
  void write_to(Hub::Session session, Connection& connection);
  void close_finished();

  std::atomic<double> linger_seconds_;
  int exceptions_;
  RunningClock clock_;  // of the hub
  Hub hub_;
  Acceptor acceptor_;
  std::string host_;
  std::map<Hub::Session, Connection> connections_;
  Hub::Session next_session_ = 1;
  Descriptor wake_;
  std::atomic<bool> is_leaving_{false};
  Deadline leave_by_ = Deadline::max();
  std::thread thread_;
};

}  // namespace voca::engine
