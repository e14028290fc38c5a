#pragma once

#include <sys/socket.h>

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/unique_fd.h"
#include "engine/comm/key_value_store.h"
#include "engine/rendezvous/handshake.h"
#include "engine/rendezvous/wire.h"

namespace voca::engine {

[[nodiscard]] Deadline seconds_after(Deadline begin, double seconds);
[[nodiscard]] Deadline seconds_from_now(double seconds);
[[nodiscard]] double seconds_until(Deadline deadline);

/// An IPv4 or IPv6 address with a port.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  [[nodiscard]] bool is_loopback() const;
  /// "10.0.0.7:29500", "[::1]:29500"
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::string host() const;
  [[nodiscard]] int port() const;
};

/// Addresses of a host name or literal address, in the resolver's order. Throws CommunicationError naming the
/// host. Only the resolver's own timeouts bound the call.
[[nodiscard]] std::vector<Address> resolve(const std::string& host, int port);

/// Non-blocking listening socket (port 0: any free port); −1 and errno on failure.
[[nodiscard]] UniqueFd listen_on(const Address& address);
/// Addresses of the local and the remote end of a socket.
[[nodiscard]] Address local_address(int socket);
[[nodiscard]] Address peer_address(int socket);

/// Waits until poll() reports one of `events` or an error. Returns false at the deadline.
bool wait_for_socket(int socket, short events, Deadline deadline);

/// Result of one non-blocking recv(). `is_closed`: the peer has closed, or the connection broke.
struct Received {
  std::string bytes;
  bool is_closed = false;
};
[[nodiscard]] Received receive_now(int socket, std::size_t most);
/// Sends what the kernel accepts without blocking and returns the number of bytes; −1 when the connection
/// broke. Never raises SIGPIPE.
[[nodiscard]] ssize_t send_now(int socket, std::string_view bytes);

/// Authenticated connection; used by one thread at a time.
class Channel {
 public:
  /// Maximum payload of an authenticated peer; longer ones are malformed.
  static constexpr std::size_t kMaxPayload = std::size_t{16} << 20;

  /// `received` holds the bytes received after the handshake; `peer` names the remote end in messages.
  Channel(UniqueFd socket, const std::string& received, std::string peer);
  /// Throws CommunicationError when the connection broke or the deadline passed.
  void send(std::string_view frame, Deadline deadline);
  /// Receives the next payload; false at the deadline. Throws CommunicationError when the peer has closed.
  bool receive(std::string& payload, Deadline deadline);
  [[nodiscard]] int socket() const { return socket_.get(); }
  [[nodiscard]] const std::string& peer() const { return peer_; }

 private:
  UniqueFd socket_;
  FrameBuffer input_;
  std::string peer_;
};

/// Connects to rank `to` and authenticates this rank, retrying until the deadline because the peer may start
/// later. Throws UsageError when the peer refuses because of a contradiction between the two;
/// CommunicationError naming the peer, the address and the last problem at the deadline or when the job has
/// failed.
[[nodiscard]] Channel connect_to_rank(const RankEnvironment& environment, Purpose purpose, int to,
                                      const std::string& host, int port, Deadline deadline);

}  // namespace voca::engine
