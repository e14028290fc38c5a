// Arbitrary bytes for everything that reads what another rank or a stranger sends: no crash, no hang, bounded
// memory, and nobody let in who proves nothing. VOCA_FUZZ_INPUTS sets how many inputs; 1 000 000 take a few
// minutes.

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <random>

#include "engine/rendezvous/coordinator.h"
#include "engine/rendezvous/handshake.h"
#include "engine/rendezvous/socket.h"
#include "engine/rendezvous/tcp_store.h"
#include "tests/engine/rendezvous/support/forked_ranks.h"
#include "tests/engine/support/mutate.h"

namespace voca::engine::test {
namespace {

constexpr int kRanks = 3;
const std::string kSecret = "a secret of this test";

int inputs() {
  const char* const given = std::getenv("VOCA_FUZZ_INPUTS");
  return given == nullptr ? 20'000 : std::atoi(given);
}

using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t n) {
  return static_cast<std::size_t>(random() % n);
}

std::string noise(Random& random, std::size_t most) {
  std::string bytes(below(random, most + 1), '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

/// Hands `bytes` over in pieces.
void in_pieces(Random& random, std::string_view bytes, const std::function<void(std::string_view)>& take) {
  while (!bytes.empty()) {
    const std::size_t size = below(random, 3) == 0 ? 1 + below(random, bytes.size()) : bytes.size();
    take(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
}

Identity an_identity(Random& random) {
  return identity_of(environment_of(static_cast<int>(below(random, kRanks)), kRanks, 1),
                     below(random, 2) == 0 ? Purpose::kStore : Purpose::kWatch, 0);
}

TEST(ProtocolFuzz, NothingButTheRightProofPassesAHandshake) {
  Random random(21);
  int passed = 0;
  for (int i = 0; i < inputs(); ++i) {
    ServerHandshake server(kSecret, [](const Identity&) { return Verdict{}; });
    ClientHandshake client(kSecret, an_identity(random));
    const std::string hello = client.receive(server.greeting());
    const std::string sent = below(random, 8) == 0 ? noise(random, 300) : mutate(hello, random);
    std::string answer;
    try {
      in_pieces(random, sent, [&](std::string_view piece) { answer += server.receive(piece); });
    } catch (const MalformedMessage&) {
    }
    // What follows a whole hello is the business of whoever lets it in.
    const bool was_right = sent.starts_with(hello);
    ASSERT_EQ(server.is_finished(), was_right);
    passed += was_right ? 1 : 0;
    if (answer.empty()) answer = noise(random, 300);
    const std::string returned = mutate(answer, random);
    try {
      in_pieces(random, returned, [&](std::string_view piece) { static_cast<void>(client.receive(piece)); });
    } catch (const MalformedMessage&) {
    }
    ASSERT_EQ(client.is_finished(), was_right && returned.starts_with(answer));
  }
  EXPECT_GT(passed, 0);
}

/// Some message that a rank may send, or nearly.
std::string a_message(Random& random) {
  const std::string key = fmt::format("key/{}", below(random, 4));
  switch (below(random, 9)) {
    case 0: {
      MessageWriter join(MessageType::kJoin);
      RankFacts facts{"host", 1, {{"--lr", "1"}}};
      if (below(random, 8) == 0) facts.must_agree = {{noise(random, 10), noise(random, 300)}};
      write_facts(join, facts);
      return join.frame();
    }
    case 1:
      return MessageWriter(MessageType::kSet).text(key).text(noise(random, 50)).frame();
    case 2:
      return MessageWriter(MessageType::kGet)
          .text(key)
          .u32(static_cast<std::uint32_t>(below(random, 5000)))
          .frame();
    case 3:
      return MessageWriter(MessageType::kAdd).text(key).u64(random()).frame();
    case 4:
      return MessageWriter(MessageType::kHas).text(key).frame();
    case 5:
      return MessageWriter(MessageType::kWatch).u32(static_cast<std::uint32_t>(below(random, 9000))).frame();
    case 6:
      return MessageWriter(MessageType::kHeartbeat).u64(below(random, 3)).text(noise(random, 20)).frame();
    case 7:
      return MessageWriter(MessageType::kFailed).text(noise(random, 20)).frame();
    default:
      return MessageWriter(MessageType::kGoodbye).frame();
  }
}

/// One life of a coordinator: ranks come, say anything, go; time passes.
void live(Random& random, std::int64_t& met, std::int64_t& ended) {
  Deadline now{};
  Coordinator coordinator(environment_of(0, kRanks, 1), 5, now);
  std::vector<Coordinator::Session> sessions;
  Coordinator::Session next = 1;
  const auto admit = [&](const Identity& identity) {
    if (coordinator.judge(identity, now).outcome != Outcome::kWelcome) return;
    coordinator.admitted(next, identity, now);
    sessions.push_back(next++);
  };
  if (below(random, 2) == 0) {  // far enough to be interesting
    for (int rank = 0; rank < kRanks; ++rank) {
      admit(identity_of(environment_of(rank, kRanks, 1), Purpose::kStore, 0));
      MessageWriter join(MessageType::kJoin);
      write_facts(join, {"host", rank, {}});
      coordinator.received(sessions.back(), join.frame(), now);
    }
    ++met;
  }
  for (int step = 0; step < 12; ++step) {
    now += std::chrono::milliseconds(below(random, 4) == 0 ? below(random, 3000) : 1);
    if (sessions.empty() || below(random, 4) == 0) {
      Identity identity = an_identity(random);
      if (below(random, 8) == 0) identity.world_size = static_cast<int>(below(random, 6));
      if (below(random, 8) == 0) identity.from = static_cast<int>(below(random, 6));
      admit(identity);
      continue;
    }
    const std::size_t at = below(random, sessions.size());
    const Coordinator::Session session = sessions[at];
    std::string bytes = a_message(random);
    if (below(random, 3) == 0) bytes += a_message(random);
    if (below(random, 3) == 0) bytes = mutate(bytes, random);
    if (below(random, 10) == 0) bytes = noise(random, 200);
    in_pieces(random, bytes, [&](std::string_view piece) { coordinator.received(session, piece, now); });
    coordinator.tick(now);
    ASSERT_LT(coordinator.output(session).size(), 16U << 20);
    if (below(random, 2) == 0) coordinator.output(session).clear();
    if (below(random, 12) == 0 || coordinator.is_over(session)) {
      coordinator.closed(session, now);
      sessions.erase(sessions.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  coordinator.tick(now + std::chrono::seconds(60));
  ended += coordinator.has_ended() ? 1 : 0;
  coordinator.close_down();
}

TEST(ProtocolFuzz, TheCoordinatorOutlivesWhateverRanksSay) {
  Random random(22);
  std::int64_t met = 0;
  std::int64_t ended = 0;
  for (int i = 0; i < inputs(); ++i) live(random, met, ended);
  EXPECT_GT(met, inputs() / 3);
  EXPECT_GT(ended, inputs() / 3);
}

/// Some answer of rank 0.
std::string an_answer(Random& random) {
  switch (below(random, 6)) {
    case 0:
      return MessageWriter(MessageType::kValue).text("v").frame();
    case 1:
      return MessageWriter(MessageType::kNumber).u64(1).frame();
    case 2:
      return MessageWriter(MessageType::kDone).frame();
    case 3:
      return MessageWriter(MessageType::kEnd).u8(74).text("rank 1 was lost").frame();
    case 4:
      return MessageWriter(MessageType::kRefused).text("too large").frame();
    default:
      return MessageWriter(MessageType::kWaiting).text("rank 1").frame();
  }
}

TEST(ProtocolFuzz, ARankOutlivesWhateverRankZeroAnswers) {
  Random random(23);
  int answered = 0;
  for (int i = 0; i < inputs() / 4; ++i) {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    UniqueFd server(ends[0]);
    const std::string bytes = below(random, 2) == 0 ? an_answer(random) : mutate(an_answer(random), random);
    ASSERT_EQ(send_now(server.get(), bytes), static_cast<ssize_t>(bytes.size()));
    ::shutdown(server.get(), SHUT_WR);
    TcpStore store(Channel(UniqueFd(ends[1]), "", "rank 0"), 1, 10);
    try {
      switch (below(random, 4)) {
        case 0:
          store.set("key", "value");
          break;
        case 1:
          static_cast<void>(store.get("key", seconds_from_now(10)));
          break;
        case 2:
          static_cast<void>(store.add("key", 1));
          break;
        default:
          static_cast<void>(store.has("key"));
          break;
      }
      ++answered;
    } catch (const Error&) {
    }
  }
  EXPECT_GT(answered, 0);
}

}  // namespace
}  // namespace voca::engine::test
