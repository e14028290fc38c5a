#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "engine/rendezvous/rank_environment.h"
#include "engine/rendezvous/wire.h"

namespace voca::engine {

// Handshake in which two ranks prove to each other that they know the job's secret, before any other message.
// HMAC is HMAC-SHA256 (RFC 2104) keyed by the secret; the secret itself is never sent.
//
//   server → client   kGreeting   magic, version, nonce_s
//   client → server   kHello      identity, nonce_c, HMAC("client", version, identity, nonce_s, nonce_c)
//   server → client   kAnswer     verdict, HMAC("server", version, identity, nonce_s, nonce_c, verdict)
//
// The nonces are 32 fresh random bytes each, which prevents replay; the "client" and "server" prefixes
// prevent reflection of one side's proof. Both classes are state machines without sockets: bytes in, bytes
// out.

enum class Purpose : std::uint8_t { kStore = 1, kWatch = 2, kLinkProbe = 3 };

/// Identity and purpose that a client claims; authenticated first, then compared with the server's.
struct Identity {
  Purpose purpose = Purpose::kStore;
  int from = 0;  ///< rank of the client
  int to = 0;    ///< rank of the server
  int world_size = 1;
  int restart_count = 0;
  std::string job;  ///< SHA-256 of RankEnvironment::job, 32 bytes
};

[[nodiscard]] Identity identity_of(const RankEnvironment& environment, Purpose purpose, int to);

enum class Outcome : std::uint8_t {
  kWelcome = 0,
  kNotNow = 1,    ///< refused; a retry may succeed
  kMismatch = 2,  ///< refused for good: a variable of the client contradicts the server's
  kEnded = 3,     ///< refused for good: the job has failed
};

struct Verdict {
  Outcome outcome = Outcome::kWelcome;
  std::string reason;  ///< "" if welcome; at most kMaxReason bytes
};

inline constexpr std::size_t kMaxReason = 4096;
/// Time that either side allows the other for the handshake.
inline constexpr double kHandshakeSeconds = 5;

using Nonce = std::array<unsigned char, 32>;

class ServerHandshake {
 public:
  /// Decides whether to admit a client that has proven its identity.
  using Judge = std::function<Verdict(const Identity&)>;

  ServerHandshake(std::string secret, Judge judge);
  /// First frame to send.
  [[nodiscard]] std::string greeting() const;
  /// Processes bytes from the client and returns the bytes to send back. Throws MalformedMessage when they
  /// are not a handshake or the proof is wrong; the client gets no answer in that case.
  std::string receive(std::string_view bytes);
  [[nodiscard]] bool is_finished() const { return is_finished_; }
  /// Once is_finished(): the client's identity, the verdict sent, and the bytes received after the handshake.
  [[nodiscard]] const Identity& identity() const { return identity_; }
  [[nodiscard]] const Verdict& verdict() const { return verdict_; }
  [[nodiscard]] std::string rest() const { return input_.rest(); }

 private:
  std::string secret_;
  Judge judge_;
  Nonce nonce_;
  FrameBuffer input_;
  Identity identity_;
  Verdict verdict_;
  bool is_finished_ = false;
};

class ClientHandshake {
 public:
  ClientHandshake(std::string secret, Identity identity);
  /// Processes bytes from the server and returns the bytes to send back. Throws MalformedMessage when they
  /// are not a handshake, are of another version, or the proof is wrong.
  std::string receive(std::string_view bytes);
  [[nodiscard]] bool is_finished() const { return is_finished_; }
  [[nodiscard]] const Verdict& verdict() const { return verdict_; }
  [[nodiscard]] std::string rest() const { return input_.rest(); }

 private:
  std::string hello(MessageReader greeting);
  void read_answer(MessageReader answer);

  std::string secret_;
  Identity identity_;
  Nonce nonce_;
  std::string server_nonce_;
  FrameBuffer input_;
  Verdict verdict_;
  bool is_finished_ = false;
};

}  // namespace voca::engine
