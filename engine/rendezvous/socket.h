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

/// Of a host name or a literal address; those of this machine's resolver, in its order. Throws
/// CommunicationError naming the host. The resolver's own time-outs bound it.
[[nodiscard]] std::vector<Address> resolve(const std::string& host, int port);

/// A listening socket (port 0: any free one), not blocking; −1 and errno when the system refuses.
[[nodiscard]] UniqueFd listen_on(const Address& address);
/// Where this end of a socket is; where the other end is.
[[nodiscard]] Address local_address(int socket);
[[nodiscard]] Address peer_address(int socket);

/// Waits until poll() reports one of `events` (or an error) or the deadline; false at the deadline.
bool wait_for_socket(int socket, short events, Deadline deadline);

/// Result of one recv() that does not block. `is_closed`: the peer has closed or the connection broke.
struct Received {
  std::string bytes;
  bool is_closed = false;
};
[[nodiscard]] Received receive_now(int socket, std::size_t most);
/// Sends what the system takes without blocking and returns how much; −1 when the connection broke. Never a
/// SIGPIPE.
[[nodiscard]] ssize_t send_now(int socket, std::string_view bytes);

/// An authenticated connection, of one thread at a time.
class Channel {
 public:
  /// Payloads of a peer that has proven itself; longer ones are malformed.
  static constexpr std::size_t kMaxPayload = std::size_t{16} << 20;

  /// `received` is what has come behind the handshake; `peer` names the other end in messages.
  Channel(UniqueFd socket, const std::string& received, std::string peer);
  /// Throws CommunicationError when the connection broke or the deadline came first.
  void send(std::string_view frame, Deadline deadline);
  /// The next payload; false at the deadline. Throws CommunicationError when the peer has closed.
  bool receive(std::string& payload, Deadline deadline);
  [[nodiscard]] int socket() const { return socket_.get(); }
  [[nodiscard]] const std::string& peer() const { return peer_; }

 private:
  UniqueFd socket_;
  FrameBuffer input_;
  std::string peer_;
};

/// Connects to rank `to` and proves this rank to it, again and again until the deadline: the peer may come
/// later. Throws UsageError when the peer refuses for a contradiction between the two, CommunicationError
/// naming the peer, the address and what was wrong last at the deadline or when the job has failed.
[[nodiscard]] Channel connect_to_rank(const RankEnvironment& environment, Purpose purpose, int to,
                                      const std::string& host, int port, Deadline deadline);

}  // namespace voca::engine
