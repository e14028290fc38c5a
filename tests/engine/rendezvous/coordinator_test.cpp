// The coordinator, the handshake and the facts without sockets: what is let in, what is answered, what ends a
// job.

#include "engine/rendezvous/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/rendezvous/handshake.h"
#include "tests/engine/rendezvous/support/forked_ranks.h"
#include "tests/engine/support/files.h"

namespace voca::engine::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Deadline kStart{};

/// Runs both sides against each other; what each throws comes through.
struct Handshake {
  ServerHandshake server;
  ClientHandshake client;

  void run() {
    const std::string hello = client.receive(server.greeting());
    static_cast<void>(client.receive(server.receive(hello)));
  }
};

Handshake handshake(const std::string& server_secret, const std::string& client_secret,
                    const Verdict& verdict = {}) {
  return {ServerHandshake(server_secret, [verdict](const Identity&) { return verdict; }),
          ClientHandshake(client_secret, identity_of(environment_of(2, 3, 1), Purpose::kWatch, 0))};
}

TEST(Handshake, BothSidesProveThemselvesAndTheServerLearnsWhoCame) {
  Handshake both = handshake("the secret", "the secret");
  both.run();
  ASSERT_TRUE(both.server.is_finished() && both.client.is_finished());
  EXPECT_EQ(both.server.identity().from, 2);
  EXPECT_EQ(both.server.identity().world_size, 3);
  EXPECT_EQ(both.server.identity().purpose, Purpose::kWatch);
  EXPECT_EQ(both.client.verdict().outcome, Outcome::kWelcome);
}

TEST(Handshake, ARefusalIsProvenToo) {
  Handshake both = handshake("the secret", "the secret", {Outcome::kMismatch, "another world"});
  const std::string hello = both.client.receive(both.server.greeting());
  std::string answer = both.server.receive(hello);
  answer[answer.find("another")] = 'X';
  EXPECT_THROW(static_cast<void>(both.client.receive(answer)), MalformedMessage);
}

TEST(Handshake, AnotherSecretProvesNothingToEitherSide) {
  Handshake both = handshake("the secret", "another one");
  EXPECT_THROW(both.run(), MalformedMessage);
  EXPECT_FALSE(both.server.is_finished());
  // Whoever sits at the port without the secret is found out by its answer.
  Handshake right = handshake("the secret", "the secret");
  static_cast<void>(right.client.receive(right.server.greeting()));
  Handshake impostor = handshake("another one", "another one");
  const std::string hello = impostor.client.receive(impostor.server.greeting());
  const std::string answer = impostor.server.receive(hello);
  EXPECT_THROW(static_cast<void>(right.client.receive(answer)), MalformedMessage);
}

TEST(Handshake, NothingThatWasRecordedProvesAnythingLater) {
  Handshake recorded = handshake("the secret", "the secret");
  const std::string hello = recorded.client.receive(recorded.server.greeting());
  const std::string answer = recorded.server.receive(hello);
  Handshake later = handshake("the secret", "the secret");
  EXPECT_THROW(static_cast<void>(later.server.receive(hello)), MalformedMessage);
  static_cast<void>(later.client.receive(later.server.greeting()));
  EXPECT_THROW(static_cast<void>(later.client.receive(answer)), MalformedMessage);
}

TEST(Handshake, EveryFlippedBitOfAHelloIsRefused) {
  for (std::size_t bit = 0;; ++bit) {
    Handshake both = handshake("the secret", "the secret");
    std::string hello = both.client.receive(both.server.greeting());
    if (bit == 8 * hello.size()) break;
    hello[bit / 8] = static_cast<char>(hello[bit / 8] ^ (1 << (bit % 8)));
    try {
      static_cast<void>(both.server.receive(hello));
    } catch (const MalformedMessage&) {
      continue;
    }
    EXPECT_FALSE(both.server.is_finished()) << "bit " << bit;  // waits for a longer one
  }
}

TEST(Handshake, ComesByteByByteToo) {
  Handshake both = handshake("the secret", "the secret");
  std::string hello;
  for (const char byte : both.server.greeting()) hello += both.client.receive(std::string(1, byte));
  std::string answer;
  for (const char byte : hello) answer += both.server.receive(std::string(1, byte));
  for (const char byte : answer + "more") static_cast<void>(both.client.receive(std::string(1, byte)));
  EXPECT_TRUE(both.client.is_finished());
  EXPECT_EQ(both.client.rest(), "more");
}

TEST(RankFacts, DifferencesAreToldByValueAndHashesOnlyAlone) {
  const std::string hash_a(64, 'a');
  const std::string hash_b(64, 'b');
  const RankFacts first{"h", 1, {{"build", hash_a}, {"--lr", "1"}, {"--seed", "7"}}};
  const RankFacts other{"h", 1, {{"build", hash_b}, {"--lr", "2"}}};
  const RankFacts only_hash{"h", 1, {{"build", hash_b}, {"--lr", "1"}, {"--seed", "7"}}};
  EXPECT_EQ(difference({first, first, first}), "");
  EXPECT_EQ(difference({first, other, first, other, other}),
            "ranks 1, 3, 4 differ from rank 0 in --lr: 2, 1; ranks 1, 3, 4 differ from rank 0 in --seed: "
            "absent, 7");
  EXPECT_EQ(difference({first, only_hash}),
            "rank 1 differs from rank 0 in build: bbbbbbbbbbbb, aaaaaaaaaaaa");
  EXPECT_EQ(list_of_ranks({0, 2, 3, 4, 5, 9}), "ranks 0, 2-5, 9");
}

TEST(RankFacts, LongValuesAreComparedWhole) {
  const auto after_travel = [](const std::string& value) {
    MessageWriter writer(MessageType::kJoin);
    write_facts(writer, {"h", 1, {{"files", value}}});
    const std::string frame = writer.frame();
    MessageReader reader(std::string_view(frame).substr(4));
    return read_facts(reader);
  };
  const std::string longer(10'000, 'x');
  EXPECT_EQ(difference({after_travel(longer + "a"), after_travel(longer + "a")}), "");
  EXPECT_THAT(difference({after_travel(longer + "a"), after_travel(longer + "b")}), HasSubstr("files: xxx"));
}

/// A coordinator of `world_size` ranks; a rank's store session is its number, its watchdog's is 100 more.
class CoordinatedJob {
 public:
  explicit CoordinatedJob(int world_size)
      : world_size_(world_size), coordinator_(environment_of(0, world_size, 1), 10, kStart) {}

  Coordinator& coordinator() { return coordinator_; }
  Outcome comes(int rank, Purpose purpose = Purpose::kStore, Deadline now = kStart) {
    const Identity identity = identity_of(environment_of(rank, world_size_, 1), purpose, 0);
    const Outcome outcome = coordinator_.judge(identity, now).outcome;
    if (outcome == Outcome::kWelcome)
      coordinator_.admitted(rank + (purpose == Purpose::kWatch ? 100 : 0), identity, now);
    return outcome;
  }
  void joins(int rank) {
    comes(rank);
    MessageWriter join(MessageType::kJoin);
    write_facts(join, {fmt::format("node-{}", rank), 4000 + rank, {}});
    coordinator_.received(rank, join.frame(), kStart);
  }
  void all_meet() {
    for (int rank = 0; rank < world_size_; ++rank) joins(rank);
    for (int rank = 0; rank < world_size_; ++rank) EXPECT_THAT(said_to(rank), ElementsAre(MessageType::kMet));
  }
  void watches(int rank, Deadline now, std::uint32_t timeout_milliseconds) {
    EXPECT_EQ(comes(rank, Purpose::kWatch, now), Outcome::kWelcome);
    coordinator_.received(rank + 100, MessageWriter(MessageType::kWatch).u32(timeout_milliseconds).frame(),
                          now);
  }
  void beats(int rank, std::uint64_t progress, const std::string& what, Deadline now) {
    coordinator_.received(rank + 100, MessageWriter(MessageType::kHeartbeat).u64(progress).text(what).frame(),
                          now);
  }
  /// Types of what a session is to be sent, pulses left out; takes it away.
  std::vector<MessageType> said_to(Coordinator::Session session) {
    FrameBuffer frames(1 << 24);
    frames.append(std::exchange(coordinator_.output(session), ""));
    std::vector<MessageType> types;
    std::string payload;
    while (frames.next(payload)) {
      last_ = payload;
      const MessageType type = MessageReader(payload).type();
      if (type != MessageType::kPulse) types.push_back(type);
    }
    return types;
  }
  /// Reason of the kEnd that a session was sent last.
  std::string end_of(Coordinator::Session session) {
    EXPECT_THAT(said_to(session), ElementsAre(MessageType::kEnd));
    MessageReader end(last_);
    static_cast<void>(end.u8());
    return end.text(kMaxReason);
  }

 private:
  int world_size_;
  Coordinator coordinator_;
  std::string last_;
};

TEST(Coordinator, LetsEachRankInOnceAndOnlyInOrder) {
  CoordinatedJob h(2);
  EXPECT_EQ(h.comes(1, Purpose::kWatch), Outcome::kNotNow) << "the ranks have not met";
  EXPECT_EQ(h.comes(1), Outcome::kWelcome);
  EXPECT_EQ(h.comes(1), Outcome::kNotNow) << "there is a rank 1 already";
  h.coordinator().closed(1, kStart);
  EXPECT_EQ(h.comes(1), Outcome::kWelcome) << "it had not joined";
  h.coordinator().closed(1, kStart);
  h.all_meet();
  EXPECT_EQ(h.comes(1, Purpose::kWatch), Outcome::kWelcome);
  EXPECT_EQ(h.comes(1, Purpose::kWatch), Outcome::kNotNow);
  EXPECT_EQ(h.comes(0, Purpose::kLinkProbe), Outcome::kNotNow);
}

TEST(Coordinator, AnotherJobOrLifeIsRefusedAndAnotherWorldEndsTheRendezvous) {
  CoordinatedJob h(2);
  h.joins(0);
  RankEnvironment other = environment_of(1, 2, 1);
  other.job = "another";
  EXPECT_EQ(h.coordinator().judge(identity_of(other, Purpose::kStore, 0), kStart).outcome, Outcome::kNotNow);
  other = environment_of(1, 2, 1);
  other.restart_count = 1;
  EXPECT_EQ(h.coordinator().judge(identity_of(other, Purpose::kStore, 0), kStart).outcome, Outcome::kNotNow);
  EXPECT_FALSE(h.coordinator().has_ended());
  EXPECT_EQ(h.coordinator().judge(identity_of(environment_of(5, 8, 1), Purpose::kStore, 0), kStart).outcome,
            Outcome::kMismatch);
  EXPECT_EQ(h.end_of(0), "rank 5 differs from rank 0 in WORLD_SIZE: 8, 2");
}

TEST(Coordinator, AWaitingGetIsAnsweredBySetOrAtItsTime) {
  CoordinatedJob h(2);
  h.all_meet();
  const std::string get = MessageWriter(MessageType::kGet).text("key").u32(500).frame();
  h.coordinator().received(0, get, kStart);
  EXPECT_THAT(h.said_to(0), IsEmpty());
  h.coordinator().tick(kStart + milliseconds(499));
  EXPECT_THAT(h.said_to(0), IsEmpty());
  h.coordinator().tick(kStart + milliseconds(500));
  EXPECT_THAT(h.said_to(0), ElementsAre(MessageType::kAbsent));
  h.coordinator().received(0, get, kStart);
  h.coordinator().received(1, MessageWriter(MessageType::kSet).text("key").text("v").frame(), kStart);
  EXPECT_THAT(h.said_to(0), ElementsAre(MessageType::kValue));
  EXPECT_THAT(h.said_to(1), ElementsAre(MessageType::kDone));
}

TEST(Coordinator, ARankThatTalksNonsenseIsDroppedByName) {
  CoordinatedJob h(2);
  h.all_meet();
  h.coordinator().received(0, MessageWriter(MessageType::kGet).text("key").u32(500).frame(), kStart);
  h.coordinator().received(1, std::string(4, '\xFF'), kStart);
  EXPECT_TRUE(h.coordinator().is_over(1));
  EXPECT_THAT(h.end_of(0), HasSubstr("rank 1 (host node-1, pid 4001) was dropped, for it sent a message of"));
}

TEST(Coordinator, RankZeroHearsOfTheEndWhenTheOthersAreGoneOrHadTheirTime) {
  for (const bool others_go : {true, false}) {
    CoordinatedJob h(3);
    h.all_meet();
    for (int rank = 0; rank < 3; ++rank) h.watches(rank, kStart, 60'000);
    h.beats(1, 1, "step 3", kStart);
    h.coordinator().closed(101, kStart);  // lost
    EXPECT_EQ(h.end_of(102), "rank 1 (host node-1, pid 4001) was lost; it was last at: step 3");
    h.coordinator().tick(kStart + milliseconds(10));
    EXPECT_THAT(h.said_to(100), IsEmpty());
    h.coordinator().closed(1, kStart);
    if (others_go) {
      h.coordinator().closed(102, kStart);
      h.coordinator().closed(2, kStart);
    }
    h.coordinator().tick(kStart + milliseconds(others_go ? 20 : 1600));
    EXPECT_THAT(h.end_of(100), HasSubstr("rank 1"));
    h.coordinator().tick(kStart + seconds(5));
    EXPECT_THAT(h.said_to(100), IsEmpty()) << "it is said once";
  }
}

TEST(Coordinator, SilenceAndStandstillEndTheJobJustAfterTheTimeOut) {
  for (const bool is_silent : {true, false}) {
    CoordinatedJob h(2);
    h.all_meet();
    for (const int rank : {0, 1}) h.watches(rank, kStart, 4000);
    for (int i = 1; i <= 40; ++i) {
      const Deadline now = kStart + milliseconds(100 * i);
      h.beats(0, static_cast<std::uint64_t>(i), "step", now);
      if (!is_silent) h.beats(1, 5, "all-gather", now);
      h.coordinator().tick(now);
    }
    EXPECT_FALSE(h.coordinator().has_ended())
        << (is_silent ? "silent for exactly the time-out" : "a first beat is progress");
    for (const int later : {4200, 8400}) {
      h.beats(0, static_cast<std::uint64_t>(later), "step", kStart + milliseconds(later));
      if (!is_silent) h.beats(1, 5, "all-gather", kStart + milliseconds(later));
      h.coordinator().tick(kStart + milliseconds(later));
    }
    EXPECT_TRUE(h.coordinator().has_ended());
    EXPECT_THAT(h.end_of(101),
                HasSubstr(is_silent ? "has been silent for 4.2 s" : "has made no progress for"));
  }
}

TEST(Coordinator, AGoodbyeIsNoLoss) {
  CoordinatedJob h(2);
  h.all_meet();
  h.watches(1, kStart, 1000);
  for (const int session : {101, 1}) {
    h.coordinator().received(session, MessageWriter(MessageType::kGoodbye).frame(), kStart);
    EXPECT_TRUE(h.coordinator().is_over(session));
    h.coordinator().closed(session, kStart);
  }
  h.coordinator().tick(kStart + seconds(100));
  EXPECT_FALSE(h.coordinator().has_ended());
}

}  // namespace
}  // namespace voca::engine::test
