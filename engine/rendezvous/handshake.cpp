#include "engine/rendezvous/handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <utility>

namespace voca::engine {
namespace {

constexpr std::string_view kMagic = "voca-rendezvous";
/// Protocol version; increment it with every change of the messages.
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kMacBytes = 32;
constexpr std::size_t kJobBytes = 32;
/// Largest hello: an unauthenticated client may occupy no more memory than this.
constexpr std::size_t kMaxHello = 128;

Nonce fresh_nonce() {
  Nonce nonce{};
  if (RAND_bytes(nonce.data(), static_cast<int>(nonce.size())) != 1)
    throw IoError("the system's random numbers cannot be read");
  return nonce;
}

std::string_view bytes_of(const Nonce& nonce) {
  return {reinterpret_cast<const char*>(nonce.data()), nonce.size()};
}

void write_identity(MessageWriter& writer, const Identity& identity) {
  writer.u8(static_cast<std::uint8_t>(identity.purpose));
  for (const int number : {identity.from, identity.to, identity.world_size, identity.restart_count})
    writer.u32(static_cast<std::uint32_t>(number));
  writer.raw(identity.job);
}

int read_count(MessageReader& reader) {
  constexpr std::uint32_t kMax = 1U << 30;
  const std::uint32_t number = reader.u32();
  if (number > kMax) throw MalformedMessage(fmt::format("a number of {}, expected at most {}", number, kMax));
  return static_cast<int>(number);
}

Identity read_identity(MessageReader& reader) {
  Identity identity;
  const std::uint8_t purpose = reader.u8();
  if (purpose < static_cast<std::uint8_t>(Purpose::kStore) ||
      purpose > static_cast<std::uint8_t>(Purpose::kLinkProbe))
    throw MalformedMessage(fmt::format("a connection for purpose {}, which there is not", purpose));
  identity.purpose = static_cast<Purpose>(purpose);
  identity.from = read_count(reader);
  identity.to = read_count(reader);
  identity.world_size = read_count(reader);
  identity.restart_count = read_count(reader);
  identity.job = reader.raw(kJobBytes);
  return identity;
}

std::string proof(const std::string& secret, std::string_view side, const Identity& identity,
                  std::string_view server_nonce, std::string_view client_nonce, const Verdict& verdict) {
  MessageWriter writer(MessageType::kHello);
  writer.text(kMagic).u32(kVersion).text(side);
  write_identity(writer, identity);
  writer.raw(server_nonce).raw(client_nonce);
  writer.u8(static_cast<std::uint8_t>(verdict.outcome)).text(verdict.reason);
  const std::string said = writer.frame();
  std::string mac(kMacBytes, '\0');
  const unsigned char* const result = HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
                                           reinterpret_cast<const unsigned char*>(said.data()), said.size(),
                                           reinterpret_cast<unsigned char*>(mac.data()), nullptr);
  VOCA_CHECK(result != nullptr);
  return mac;
}

bool equal_in_constant_time(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace

Identity identity_of(const RankEnvironment& environment, Purpose purpose, int to) {
  Identity identity{purpose,
                    environment.rank,
                    to,
                    environment.world_size,
                    environment.restart_count,
                    std::string(kJobBytes, '\0')};
  SHA256(reinterpret_cast<const unsigned char*>(environment.job.data()), environment.job.size(),
         reinterpret_cast<unsigned char*>(identity.job.data()));
  return identity;
}

ServerHandshake::ServerHandshake(std::string secret, Judge judge)
    : secret_(std::move(secret)), judge_(std::move(judge)), nonce_(fresh_nonce()), input_(kMaxHello) {}

std::string ServerHandshake::greeting() const {
  return MessageWriter(MessageType::kGreeting).text(kMagic).u32(kVersion).raw(bytes_of(nonce_)).frame();
}

std::string ServerHandshake::receive(std::string_view bytes) {
  input_.append(bytes);
  std::string payload;
  if (is_finished_ || !input_.next(payload)) return {};
  MessageReader hello(payload);
  hello.expect(MessageType::kHello);
  const Identity identity = read_identity(hello);
  const std::string client_nonce = hello.raw(nonce_.size());
  const std::string mac = hello.raw(kMacBytes);
  hello.finish();
  if (!equal_in_constant_time(mac, proof(secret_, "client", identity, bytes_of(nonce_), client_nonce, {})))
    throw MalformedMessage("another secret");
  identity_ = identity;
  verdict_ = judge_(identity_);
  verdict_.reason.resize(std::min(verdict_.reason.size(), kMaxReason));
  is_finished_ = true;
  return MessageWriter(MessageType::kAnswer)
      .u8(static_cast<std::uint8_t>(verdict_.outcome))
      .text(verdict_.reason)
      .raw(proof(secret_, "server", identity_, bytes_of(nonce_), client_nonce, verdict_))
      .frame();
}

ClientHandshake::ClientHandshake(std::string secret, Identity identity)
    : secret_(std::move(secret)),
      identity_(std::move(identity)),
      nonce_(fresh_nonce()),
      input_(kMaxHello + kMaxReason) {}

std::string ClientHandshake::receive(std::string_view bytes) {
  input_.append(bytes);
  std::string reply;
  std::string payload;
  while (!is_finished_ && input_.next(payload)) {
    if (server_nonce_.empty()) {
      reply = hello(MessageReader(payload));
    } else {
      read_answer(MessageReader(payload));
    }
  }
  return reply;
}

std::string ClientHandshake::hello(MessageReader greeting) {
  greeting.expect(MessageType::kGreeting);
  if (greeting.text(kMagic.size()) != kMagic) throw MalformedMessage("a greeting of another program");
  const std::uint32_t version = greeting.u32();
  if (version != kVersion) {
    throw MalformedMessage(
        fmt::format("a greeting of version {}, this program speaks version {}", version, kVersion));
  }
  server_nonce_ = greeting.raw(nonce_.size());
  greeting.finish();
  MessageWriter writer(MessageType::kHello);
  write_identity(writer, identity_);
  return writer.raw(bytes_of(nonce_))
      .raw(proof(secret_, "client", identity_, server_nonce_, bytes_of(nonce_), {}))
      .frame();
}

void ClientHandshake::read_answer(MessageReader answer) {
  answer.expect(MessageType::kAnswer);
  const std::uint8_t outcome = answer.u8();
  if (outcome > static_cast<std::uint8_t>(Outcome::kEnded))
    throw MalformedMessage(fmt::format("an answer {}, which there is not", outcome));
  verdict_ = {static_cast<Outcome>(outcome), answer.text(kMaxReason)};
  const std::string mac = answer.raw(kMacBytes);
  answer.finish();
  if (!equal_in_constant_time(mac,
                              proof(secret_, "server", identity_, server_nonce_, bytes_of(nonce_), verdict_)))
    throw MalformedMessage("an answer that proves nothing: another secret");
  is_finished_ = true;
}

}  // namespace voca::engine
