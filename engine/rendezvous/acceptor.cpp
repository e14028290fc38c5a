#include "engine/rendezvous/acceptor.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cerrno>
#include <utility>

#include "engine/rendezvous/socket.h"

namespace voca::engine {
Acceptor::Acceptor(UniqueFd listener, std::string secret, ServerHandshake::Judge judge,
                   std::size_t most_pending)
    : listener_(std::move(listener)),
      secret_(std::move(secret)),
      judge_(std::move(judge)),
      most_pending_(most_pending) {}

void Acceptor::add_to(std::vector<pollfd>& waited) const {
  const bool is_paused = seconds_until(paused_until_) > 0;
  waited.push_back({listener_.get(), static_cast<short>(is_paused ? 0 : POLLIN), 0});
  for (const Pending& pending : pending_) waited.push_back({pending.socket.get(), POLLIN, 0});
}

std::optional<Acceptor::Admitted> Acceptor::process(const pollfd* polled) {
  const bool someone_knocks = (polled->revents & POLLIN) != 0;
  std::optional<Admitted> admitted;
  std::erase_if(pending_, [&](Pending& pending) {
    ++polled;
    if (polled->revents != 0 && !admitted && !advance(pending, admitted)) return true;
    if (seconds_until(pending.deadline) > 0) return false;
    refuse(pending, "silent");
    return true;
  });
  if (someone_knocks) accept_all();
  return admitted;
}

void Acceptor::accept_all() {
  // Keeps a flood of connections from starving authenticated clients.
  constexpr int kMaxAtOnce = 256;
  for (int i = 0; i < kMaxAtOnce; ++i) {
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.get() < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      // Out of descriptors or memory: drop a pending client and pause accepting for a moment.
      drop_oldest();
      paused_until_ = seconds_from_now(0.1);
      return;
    }
    if (pending_.size() >= most_pending_) drop_oldest();
    const int on = 1;
    static_cast<void>(::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    Pending& pending = pending_.emplace_back(
        Pending{std::move(socket), ServerHandshake(secret_, judge_), seconds_from_now(kHandshakeSeconds)});
    const std::string greeting = pending.handshake.greeting();
    // The send buffer of a fresh socket has room for a hundred bytes.
    if (send_now(pending.socket.get(), greeting) != static_cast<ssize_t>(greeting.size())) {
      refuse(pending, "gone");
      pending_.pop_back();
    }
  }
}

void Acceptor::drop_oldest() {
  if (pending_.empty()) return;
  refuse(pending_.front(), "too many connections");
  pending_.pop_front();
}

void Acceptor::refuse(const Pending& pending, const std::string& why) {
  ++refusals_.count;
  refusals_.last = peer_address(pending.socket.get()).text() + ": " + why;
}

bool Acceptor::advance(Pending& pending, std::optional<Admitted>& admitted) {
  const Received received = receive_now(pending.socket.get(), 4096);
  std::string reply;
  try {
    reply = pending.handshake.receive(received.bytes);
  } catch (const MalformedMessage& error) {
    refuse(pending, error.what());
    return false;
  }
  if (!pending.handshake.is_finished()) {
    if (received.is_closed) refuse(pending, "gone");
    return !received.is_closed;
  }
  // A client that has already disconnected is still admitted: the judge has recorded it, and the next read
  // finds it closed.
  static_cast<void>(send_now(pending.socket.get(), reply));
  const Verdict& verdict = pending.handshake.verdict();
  if (verdict.outcome != Outcome::kWelcome) {
    refuse(pending, verdict.reason);
    return false;
  }
  admitted = Admitted{std::move(pending.socket), pending.handshake.identity(), pending.handshake.rest()};
  return false;
}

}  // namespace voca::engine
