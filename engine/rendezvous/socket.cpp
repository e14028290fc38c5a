#include "engine/rendezvous/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "engine/base/path_status.h"
#include "engine/comm/communication_error.h"

namespace voca::engine {
namespace {

constexpr int kBacklog = 1024;
constexpr std::size_t kChunk = std::size_t{64} << 10;
/// Timeout of one connection attempt; a lost SYN is retransmitted after one second.
constexpr double kConnectSeconds = 3;

void send_small_messages_at_once(int socket) {
  const int on = 1;
  static_cast<void>(::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
}

/// Returns −1 and sets errno on failure; ETIMEDOUT at the deadline.
UniqueFd connect_once(const Address& address, Deadline deadline) {
  UniqueFd socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return socket;
  int problem = 0;
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0) {
    problem = errno;
    if (problem == EINPROGRESS) {
      socklen_t size = sizeof problem;
      if (!wait_for_socket(socket.get(), POLLOUT, deadline)) {
        problem = ETIMEDOUT;
      } else if (::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &problem, &size) != 0) {
        problem = errno;
      }
    }
  }
  if (problem != 0) {
    errno = problem;
    return {};
  }
  send_small_messages_at_once(socket.get());
  return socket;
}

/// Runs one handshake. Returns the verdict and sets `received`; throws MalformedMessage or
/// CommunicationError.
Verdict shake_hands(int socket, const std::string& secret, const Identity& identity, std::string& received,
                    Deadline deadline) {
  ClientHandshake handshake(secret, identity);
  while (!handshake.is_finished()) {
    if (!wait_for_socket(socket, POLLIN, deadline)) {
      throw CommunicationError(
          "something listens there and does not answer; another program may have the port");
    }
    const Received got = receive_now(socket, kChunk);
    const std::string reply = handshake.receive(got.bytes);
    if (handshake.is_finished()) break;
    if (got.is_closed) {
      throw CommunicationError(
          "the connection was closed during the handshake; this rank may have another secret");
    }
    // The send buffer of a fresh socket has room for a hundred bytes.
    if (send_now(socket, reply) != static_cast<ssize_t>(reply.size()))
      throw CommunicationError("the connection broke during the handshake");
  }
  received = handshake.rest();
  return handshake.verdict();
}

/// The job has ended where the peer is: another attempt cannot succeed.
class JobEnded : public CommunicationError {
  using CommunicationError::CommunicationError;
};

/// Connects and authenticates once. Throws UsageError for a contradiction, JobEnded, or another Error that
/// says what kept it from it.
Channel connect_at(const Address& address, const std::string& secret, const Identity& identity,
                   Deadline deadline) {
  UniqueFd socket = connect_once(address, std::min(deadline, seconds_from_now(kConnectSeconds)));
  if (!socket) throw CommunicationError("{}", std::strerror(errno));
  std::string received;
  const Verdict verdict = shake_hands(socket.get(), secret, identity, received,
                                      std::min(deadline, seconds_from_now(kHandshakeSeconds)));
  if (verdict.outcome == Outcome::kMismatch) throw UsageError("{}", verdict.reason);
  if (verdict.outcome == Outcome::kEnded) throw JobEnded("{}", verdict.reason);
  if (verdict.outcome != Outcome::kWelcome) throw CommunicationError("{}", verdict.reason);
  const std::string peer = fmt::format("rank {} at {}", identity.to, peer_address(socket.get()).text());
  return {std::move(socket), received, peer};
}

/// connect_at() the first address that lets this rank in; nullopt and the last `problem` if none does.
std::optional<Channel> connect_to_host(const std::string& host, int port, const std::string& secret,
                                       const Identity& identity, Deadline deadline, std::string& problem) {
  std::vector<Address> addresses;
  try {
    addresses = resolve(host, port);
  } catch (const CommunicationError& error) {
    problem = error.what();
  }
  for (const Address& address : addresses) {
    try {
      return connect_at(address, secret, identity, deadline);
    } catch (const UsageError&) {
      throw;
    } catch (const JobEnded&) {
      throw;
    } catch (const Error& error) {
      problem = error.what();
    }
  }
  return std::nullopt;
}

}  // namespace

Deadline seconds_after(Deadline begin, double seconds) {
  // A timeout of more than 30 years is effectively none, and would overflow the clock.
  constexpr double kMax = 1e9;
  const auto span = std::chrono::duration<double>(std::clamp(seconds, 0.0, kMax));
  return begin + std::chrono::duration_cast<Deadline::duration>(span);
}

Deadline seconds_from_now(double seconds) {
  return seconds_after(std::chrono::steady_clock::now(), seconds);
}

double seconds_until(Deadline deadline) {
  return std::chrono::duration<double>(deadline - std::chrono::steady_clock::now()).count();
}

bool Address::is_loopback() const {
  if (storage.ss_family == AF_INET) {
    const auto& ip = reinterpret_cast<const sockaddr_in&>(storage);
    return (ntohl(ip.sin_addr.s_addr) >> 24) == 127;
  }
  const auto& ip = reinterpret_cast<const sockaddr_in6&>(storage);
  return IN6_IS_ADDR_LOOPBACK(&ip.sin6_addr) != 0;
}

std::string Address::host() const {
  std::array<char, NI_MAXHOST> name{};
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&storage), length, name.data(), name.size(), nullptr, 0,
                    NI_NUMERICHOST) != 0)
    return "an unknown address";
  return name.data();
}

int Address::port() const {
  return ntohs(storage.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(storage).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(storage).sin_port);
}

std::string Address::text() const {
  const bool is_ipv6 = storage.ss_family == AF_INET6;
  return is_ipv6 ? fmt::format("[{}]:{}", host(), port()) : fmt::format("{}:{}", host(), port());
}

std::vector<Address> resolve(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failed != 0) {
    throw CommunicationError("the host \"{}\" has no address: {}", host,
                             failed == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(failed));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  std::vector<Address> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    if (one->ai_family != AF_INET && one->ai_family != AF_INET6) continue;
    Address& address = addresses.emplace_back();
    std::memcpy(&address.storage, one->ai_addr, one->ai_addrlen);
    address.length = one->ai_addrlen;
  }
  return addresses;
}

UniqueFd listen_on(const Address& address) {
  UniqueFd socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return socket;
  const int on = 1;
  // Without SO_REUSEADDR a restarted job would find its port occupied by closed connections in TIME_WAIT.
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) == 0 &&
      ::listen(socket.get(), kBacklog) == 0)
    return socket;
  return {};
}

Address local_address(int socket) {
  Address address;
  address.length = sizeof address.storage;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0)
    throw CommunicationError("a socket's own address: {}", std::strerror(errno));
  return address;
}

Address peer_address(int socket) {
  Address address;
  address.length = sizeof address.storage;
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0)
    address.length = 0;  // the peer is already gone; text() reports the address as unknown
  return address;
}

bool wait_for_socket(int socket, short events, Deadline deadline) {
  for (;;) {
    pollfd waited{socket, events, 0};
    const double milliseconds = std::clamp(std::ceil(seconds_until(deadline) * 1e3), 0.0, 1e6);
    const int ready = ::poll(&waited, 1, static_cast<int>(milliseconds));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) throw CommunicationError("poll: {}", std::strerror(errno));
    if (seconds_until(deadline) <= 0) return false;
  }
}

Received receive_now(int socket, std::size_t most) {
  Received received;
  received.bytes.resize(most);
  const ssize_t got =
      uninterrupted([&] { return ::recv(socket, received.bytes.data(), most, MSG_DONTWAIT); });
  received.is_closed = got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
  received.bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return received;
}

ssize_t send_now(int socket, std::string_view bytes) {
  if (bytes.empty()) return 0;
  const ssize_t sent =
      uninterrupted([&] { return ::send(socket, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL); });
  return sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : sent;
}

Channel::Channel(UniqueFd socket, const std::string& received, std::string peer)
    : socket_(std::move(socket)), input_(kMaxPayload), peer_(std::move(peer)) {
  input_.append(received);
}

void Channel::send(std::string_view frame, Deadline deadline) {
  while (!frame.empty()) {
    const ssize_t sent = send_now(socket_.get(), frame);
    if (sent < 0) throw CommunicationError("{}: the connection broke: {}", peer_, std::strerror(errno));
    frame.remove_prefix(static_cast<std::size_t>(sent));
    if (!frame.empty() && !wait_for_socket(socket_.get(), POLLOUT, deadline))
      throw CommunicationError("{} does not read what it is sent", peer_);
  }
}

bool Channel::receive(std::string& payload, Deadline deadline) {
  while (!input_.next(payload)) {
    if (!wait_for_socket(socket_.get(), POLLIN, deadline)) return false;
    const Received received = receive_now(socket_.get(), kChunk);
    input_.append(received.bytes);
    if (received.is_closed) throw CommunicationError("{} has closed the connection", peer_);
  }
  return true;
}

Channel connect_to_rank(const RankEnvironment& environment, Purpose purpose, int to, const std::string& host,
                        int port, Deadline deadline) {
  constexpr auto kFirstPause = std::chrono::milliseconds(20);
  constexpr auto kMaxPause = std::chrono::milliseconds(500);
  constexpr double kLeastSeconds = 0.1;
  const auto started = std::chrono::steady_clock::now();
  const Identity identity = identity_of(environment, purpose, to);
  std::string problem;
  for (auto pause = kFirstPause;; pause = std::min(2 * pause, kMaxPause)) {
    if (auto channel = connect_to_host(host, port, environment.secret, identity, deadline, problem))
      return std::move(*channel);
    std::this_thread::sleep_until(std::min(deadline, std::chrono::steady_clock::now() + pause));
    // An attempt that the deadline cuts short would replace the informative error.
    if (seconds_until(deadline) < kLeastSeconds) break;
  }
  throw CommunicationError("rank {} could not reach rank {} at {} port {} within {:.1f} s: {}",
                           environment.rank, to, host, port, -seconds_until(started), problem);
}

}  // namespace voca::engine
