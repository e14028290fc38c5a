#include "engine/rendezvous/coordinator_server.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/thread.h"
#include "engine/rendezvous/socket.h"

namespace voca::engine {
namespace {

constexpr int kTurnMilliseconds = 100;
constexpr std::size_t kChunk = std::size_t{64} << 10;
/// Limit on unauthenticated clients, in addition to one per rank.
constexpr std::size_t kMaxStrangers = 128;
/// Linger time after the job has ended: ranks are notified at once and take about a second to exit.
constexpr double kLingerAfterEnd = 1.5;
/// How long to retry binding the port: a restarted job's previous incarnation may still hold it.
constexpr double kPortSeconds = 10;

/// Addresses to listen on: the single interface of master_addr, or loopback if there is one node.
std::vector<Address> own_addresses(const RankEnvironment& environment) {
  std::vector<Address> addresses = resolve(environment.master_addr, environment.rendezvous_port);
  if (environment.nodes == 1) {
    std::erase_if(addresses, [](const Address& address) { return !address.is_loopback(); });
    return addresses.empty() ? resolve("127.0.0.1", environment.rendezvous_port) : addresses;
  }
  const std::string& host = environment.master_addr;
  // Debian resolves a machine's own name to 127.0.1.1, which other nodes cannot reach. A loopback address
  // given literally is intended.
  const bool is_meant = host == "localhost" || addresses.front().host() == host;
  if (is_meant) return addresses;
  std::erase_if(addresses, [](const Address& address) { return address.is_loopback(); });
  if (addresses.empty()) {
    throw UsageError(
        "MASTER_ADDR: {} is a loopback address on rank 0's machine, where the other nodes cannot reach it; "
        "give the address of the interface that they reach",
        host);
  }
  return addresses;
}

UniqueFd listen_at(const RankEnvironment& environment, double rendezvous_seconds) {
  const std::vector<Address> addresses = own_addresses(environment);
  const Deadline deadline = seconds_from_now(std::min(kPortSeconds, rendezvous_seconds));
  for (;;) {
    int problem = 0;
    for (const Address& address : addresses) {
      UniqueFd socket = listen_on(address);
      if (socket.get() >= 0) return socket;
      problem = errno;
      if (problem == EADDRINUSE) break;
    }
    if (problem == EADDRNOTAVAIL) {
      throw UsageError(
          "MASTER_ADDR: {} ({}) is not an address of rank 0's machine; give an address of the machine that rank "
          "0 runs on",
          environment.master_addr, addresses.front().host());
    }
    if (problem != EADDRINUSE)
      throw IoError("rank 0 cannot listen at {}: {}", addresses.front().text(), std::strerror(problem));
    if (seconds_until(deadline) <= 0) {
      throw UsageError(
          "rank 0 cannot listen at {}: {}; choose another port with --master_port of launch or torchrun "
          "(MASTER_PORT under srun, VOCA_MEETING_PORT under any)",
          addresses.front().text(), std::strerror(problem));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(kTurnMilliseconds));
  }
}

}  // namespace

CoordinatorServer::CoordinatorServer(const RankEnvironment& environment, double rendezvous_seconds)
    : linger_seconds_(rendezvous_seconds),
      exceptions_(std::uncaught_exceptions()),
      coordinator_(environment, rendezvous_seconds, clock_.now()),
      acceptor_(
          listen_at(environment, rendezvous_seconds), environment.secret,
          [this](const Identity& identity) { return coordinator_.judge(identity, clock_.now()); },
          kMaxStrangers + static_cast<std::size_t>(environment.world_size)),
      host_(local_address(acceptor_.listener()).host()),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (wake_.get() < 0) throw IoError("an event for rank 0's server: {}", std::strerror(errno));
  thread_ = start_thread<std::thread>("rank 0's server of the other ranks", [this] { serve(); });
}

CoordinatorServer::~CoordinatorServer() {
  if (std::uncaught_exceptions() > exceptions_) linger_seconds_ = kLingerAfterEnd;
  is_leaving_ = true;
  const std::uint64_t one = 1;
  static_cast<void>(::write(wake_.get(), &one, sizeof one));
  thread_.join();
}

void CoordinatorServer::serve() {
  try {
    while (!is_to_stop()) turn();
    coordinator_.close_down();
    for (auto& [session, connection] : connections_) write_to(session, connection);
  } catch (const std::exception& error) {
    // The other ranks find their connections closed and exit.
    std::fprintf(stderr, "rank 0's server of the other ranks failed: %s\n", error.what());
  }
  connections_.clear();
}

bool CoordinatorServer::is_to_stop() {
  if (!is_leaving_) return false;
  if (connections_.empty()) return true;
  const Deadline now = clock_.now();
  if (leave_by_ == Deadline::max()) leave_by_ = seconds_after(now, linger_seconds_);
  if (coordinator_.has_ended()) leave_by_ = std::min(leave_by_, seconds_after(now, kLingerAfterEnd));
  return now >= leave_by_;
}

void CoordinatorServer::turn() {
  std::vector<pollfd> waited{{wake_.get(), static_cast<short>(is_leaving_ ? 0 : POLLIN), 0}};
  std::vector<Coordinator::Session> order;
  for (const auto& [session, connection] : connections_) {
    const int events = POLLIN | (coordinator_.output(session).empty() ? 0 : POLLOUT);
    waited.push_back({connection.socket.get(), static_cast<short>(events), 0});
    order.push_back(session);
  }
  acceptor_.add_to(waited);
  if (::poll(waited.data(), waited.size(), kTurnMilliseconds) < 0 && errno != EINTR)
    throw IoError("poll: {}", std::strerror(errno));

  for (std::size_t i = 0; i < order.size(); ++i)
    if (waited[i + 1].revents != 0) read_from(order[i], connections_.at(order[i]));
  if (std::optional<Acceptor::Admitted> client = acceptor_.process(&waited[order.size() + 1])) {
    const Coordinator::Session session = next_session_++;
    coordinator_.admitted(session, client->identity, clock_.now());
    coordinator_.received(session, client->received, clock_.now());
    connections_.emplace(session, Connection{std::move(client->socket)});
  }
  const Acceptor::Refusals& refusals = acceptor_.refusals();
  if (refusals.count > 0)
    coordinator_.set_refusals(fmt::format("{} of them, the last from {}", refusals.count, refusals.last));
  coordinator_.tick(clock_.now());
  for (auto& [session, connection] : connections_) write_to(session, connection);
  close_finished();
}

void CoordinatorServer::read_from(Coordinator::Session session, Connection& connection) {
  const Received received = receive_now(connection.socket.get(), kChunk);
  if (!received.bytes.empty()) coordinator_.received(session, received.bytes, clock_.now());
  connection.is_broken = received.is_closed;
}

void CoordinatorServer::write_to(Coordinator::Session session, Connection& connection) {
  std::string& output = coordinator_.output(session);
  const ssize_t sent = send_now(connection.socket.get(), output);
  if (sent < 0) {
    connection.is_broken = true;
  } else {
    output.erase(0, static_cast<std::size_t>(sent));
  }
}

void CoordinatorServer::close_finished() {
  std::erase_if(connections_, [&](const auto& entry) {
    const auto& [session, connection] = entry;
    const bool is_done = coordinator_.is_over(session) && coordinator_.output(session).empty();
    if (connection.is_broken || is_done) coordinator_.closed(session, clock_.now());
    return connection.is_broken || is_done;
  });
}

}  // namespace voca::engine
