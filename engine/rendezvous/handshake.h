#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "engine/rendezvous/environment.h"
#include "engine/rendezvous/wire.h"

namespace voca::engine {

// How two ranks prove to each other that they know their job's secret, before anything else is said. HMAC is
// HMAC-SHA256 (RFC 2104) keyed by the secret; the secret itself is never sent.
//
//   server → client   kGreeting   magic, version, nonce_s
//   client → server   kHello      identity, nonce_c, HMAC("client", version, identity, nonce_s, nonce_c)
//   server → client   kAnswer     verdict, HMAC("server", version, identity, nonce_s, nonce_c, verdict)
//
// The nonces are 32 fresh random bytes each, so that nothing recorded proves anything later, and the word in
// front keeps one side's proof from being the other's. Both classes are state machines without sockets: bytes
// in, bytes out.

enum class Purpose : std::uint8_t { kStore = 1, kWatch = 2, kLinkProbe = 3 };

/// What a connection is for, as its client says; what is said is proven, and then compared.
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
  kNotNow = 1,    ///< refused; may be another answer later
  kMismatch = 2,  ///< refused for good: a variable of the client contradicts the server's
  kEnded = 3,     ///< refused for good: the job has failed
};

struct Verdict {
  Outcome outcome = Outcome::kWelcome;
  std::string reason;  ///< "" for a welcome; at most kMaxReason bytes
};

inline constexpr std::size_t kMaxReason = 4096;
/// Either side gives the other this long.
inline constexpr double kHandshakeSeconds = 5;

using Nonce = std::array<unsigned char, 32>;

class ServerHandshake {
 public:
  /// What to make of a client that has proven its identity.
  using Judge = std::function<Verdict(const Identity&)>;

  ServerHandshake(std::string secret, Judge judge);
  /// The first frame to send.
  [[nodiscard]] std::string greeting() const;
  /// Takes bytes of the client and returns what to send back. Throws MalformedMessage when they are no
  /// handshake or prove nothing; nothing is answered to that.
  std::string receive(std::string_view bytes);
  [[nodiscard]] bool is_finished() const { return is_finished_; }
  /// Of a client that is_finished(): who it is, what was answered, and what it sent behind the handshake.
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
  /// Takes bytes of the server and returns what to send back. Throws MalformedMessage when they are no
  /// handshake, of another version, or prove nothing.
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
