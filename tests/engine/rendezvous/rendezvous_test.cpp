#include "engine/rendezvous/rendezvous.h"

#include <poll.h>
#include <signal.h>

#include <random>
#include <thread>

#include "engine/comm/communication_error.h"
#include "engine/rendezvous/handshake.h"
#include "engine/rendezvous/socket.h"
#include "engine/rendezvous/watchdog.h"
#include "tests/engine/rendezvous/support/forked_ranks.h"
#include "tests/engine/support/files.h"

namespace voca::engine::test {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr RendezvousOptions kPatient{40};
constexpr RendezvousOptions kShort{1.5};

Deadline soon() {
  return seconds_from_now(kPatient.timeout_seconds);
}

/// Every rank tells its pid through the store and reads all others'.
std::string meet_and_talk(const RankEnvironment& environment) {
  Rendezvous rendezvous(environment, agreeing_facts(), kPatient);
  KeyValueStore& store = rendezvous.store();
  store.set(fmt::format("pid/{}", rendezvous.rank()), std::to_string(::getpid()));
  for (int rank = 0; rank < rendezvous.world_size(); ++rank) {
    const std::string pid = store.get(fmt::format("pid/{}", rank), soon());
    const RankFacts& facts = rendezvous.facts().at(static_cast<std::size_t>(rank));
    if (pid != std::to_string(facts.pid)) return "another rank's facts";
  }
  store.add("been here", 1);
  while (store.add("been here", 0) < rendezvous.world_size()) std::this_thread::yield();
  return "met";
}

void expect_all_meet(int world_size, const std::function<void(RankEnvironment&)>& change = {},
                     const std::string& host = "127.0.0.1") {
  const ReservedPort port(host);
  Ranks ranks;
  ranks.start_all(world_size, [&](int rank) {
    RankEnvironment environment = environment_of(rank, world_size, port.number());
    if (change) change(environment);
    return meet_and_talk(environment);
  });
  for (int rank = 0; rank < world_size; ++rank) {
    const Ending ending = ranks.end_of(rank);
    EXPECT_EQ(ending.said, "met") << "rank " << rank;
    EXPECT_EQ(ending.code, 0);
  }
}

TEST(Rendezvous, AnyNumberOfRanksMeetAndShareAStore) {
  for (const int world_size : {1, 2, 3, 4, 8}) expect_all_meet(world_size);
}

TEST(Rendezvous, RanksMeetOverIpv6AndByName) {
  if (ReservedPort("::1").number() != 0)
    expect_all_meet(
        2, [](RankEnvironment& e) { e.master_addr = "::1"; }, "::1");
  expect_all_meet(2, [](RankEnvironment& e) {
    e.master_addr = "localhost";
    e.nodes = 2;
  });
}

TEST(Rendezvous, AWorldOfOneOpensNoPort) {
  RankEnvironment environment;  // of port 29500, which this test does not own
  Rendezvous rendezvous(environment, agreeing_facts(), kShort);
  const UniqueFd socket = listen_on(resolve("127.0.0.1", 0).front());
  ASSERT_GE(socket.get(), 0);
  rendezvous.store().set("key", "value");
  EXPECT_EQ(rendezvous.store().get("key", soon()), "value");
  EXPECT_THAT(rendezvous.coordinator_address(), "");
}

TEST(Rendezvous, IsOpenToThisMachineAloneWhileThereIsOneNode) {
  const ReservedPort port;
  RankEnvironment environment = environment_of(0, 2, port.number());
  for (const char* anywhere : {"0.0.0.0", "::"}) {
    environment.master_addr = anywhere;
    EXPECT_EQ(CoordinatorServer(environment, 1).host(), "127.0.0.1");
  }
}

TEST(Rendezvous, RankZeroNamesAnAddressThatIsNotItsOwn) {
  RankEnvironment environment = environment_of(0, 2, ReservedPort().number());
  environment.nodes = 2;
  environment.master_addr = "192.0.2.1";  // of no machine (RFC 5737)
  EXPECT_THAT(message_of<UsageError>([&] { const CoordinatorServer server(environment, 1); }),
              HasSubstr("MASTER_ADDR: 192.0.2.1 (192.0.2.1) is not an address of rank 0's machine"));
  environment.master_addr = "no-such-host.invalid";
  EXPECT_THAT(message_of<CommunicationError>([&] { const CoordinatorServer server(environment, 1); }),
              HasSubstr("the host \"no-such-host.invalid\" has no address"));
}

TEST(Rendezvous, RankZeroNamesAPortThatIsTaken) {
  const UniqueFd taken = listen_on(resolve("127.0.0.1", 0).front());
  const int port = local_address(taken.get()).port();
  EXPECT_THAT(
      message_of<UsageError>([&] { const CoordinatorServer server(environment_of(0, 2, port), 0.5); }),
      AllOf(HasSubstr(fmt::format("rank 0 cannot listen at 127.0.0.1:{}", port)), HasSubstr("--master_port"),
            HasSubstr("MASTER_PORT under srun")));
}

TEST(Rendezvous, RankZeroMayComeLater) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    return meet_and_talk(environment_of(0, 3, port.number()));
  });
  for (const int rank : {1, 2})
    ranks.start([&] { return meet_and_talk(environment_of(rank, 3, port.number())); });
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(ranks.end_of(rank).said, "met");
}

TEST(Rendezvous, ADifferenceIsToldOnEveryRankInOneLine) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start_all(4, [&](int rank) -> std::string {
    RankFacts facts = agreeing_facts();
    if (rank % 2 == 1) facts.must_agree = {{"dataset", std::string(64, 'b')}, {"--lr", "0.001"}};
    Rendezvous rendezvous(environment_of(rank, 4, port.number()), facts, kPatient);
    return "met";
  });
  for (int rank = 0; rank < 4; ++rank) {
    const Ending ending = ranks.end_of(rank);
    EXPECT_EQ(ending.said, "ranks 1, 3 differ from rank 0 in --lr: 0.001, 0.0003");
    EXPECT_EQ(ending.code, 64);
  }
}

TEST(Rendezvous, AnotherWorldSizeIsToldOnEveryRank) {
  const ReservedPort port;
  Ranks ranks;
  for (const int rank : {0, 1}) {
    ranks.start([&]() -> std::string {
      Rendezvous rendezvous(environment_of(rank, rank == 0 ? 2 : 4, port.number()), agreeing_facts(),
                            kPatient);
      return "met";
    });
  }
  for (const int rank : {0, 1}) {
    const Ending ending = ranks.end_of(rank);
    EXPECT_EQ(ending.said, "rank 1 differs from rank 0 in WORLD_SIZE: 4, 2");
    EXPECT_EQ(ending.code, 64);
  }
}

TEST(Rendezvous, MissingRanksAreNamed) {
  const ReservedPort port;
  Ranks ranks;
  for (const int rank : {0, 3}) {
    ranks.start([&]() -> std::string {
      Rendezvous rendezvous(environment_of(rank, 4, port.number()), agreeing_facts(), kShort);
      return "met";
    });
  }
  for (const int started : {0, 1}) {
    const Ending ending = ranks.end_of(started);
    EXPECT_THAT(ending.said, HasSubstr("rendezvous timed out: ranks 1, 2 of 4 did not connect within 1.5 s"));
    EXPECT_EQ(ending.code, 74);
  }
}

TEST(Rendezvous, WithoutRankZeroTheAddressIsNamed) {
  const ReservedPort port;
  const std::string message = message_of<CommunicationError>(
      [&] { Rendezvous rendezvous(environment_of(1, 2, port.number()), agreeing_facts(), kShort); });
  EXPECT_THAT(message, AllOf(HasSubstr("rank 1 could not reach rank 0 at 127.0.0.1 port"),
                             HasSubstr(std::to_string(port.number())), HasSubstr("Connection refused")));
}

TEST(Rendezvous, ARankWithAnotherSecretIsToldApartFromASilentOne) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start([&]() -> std::string {
    Rendezvous rendezvous(environment_of(0, 2, port.number()), agreeing_facts(), kShort);
    return "met";
  });
  ranks.start([&]() -> std::string {
    RankEnvironment environment = environment_of(1, 2, port.number());
    environment.secret = std::string(64, '6');
    Rendezvous rendezvous(environment, agreeing_facts(), kShort);
    return "met";
  });
  EXPECT_THAT(ranks.end_of(0).said,
              AllOf(HasSubstr("rank 1 of 2 did not connect"), HasSubstr("another secret")));
  const std::string other = ranks.end_of(1).said;
  EXPECT_THAT(other, HasSubstr("another secret"));
  EXPECT_THAT(other, Not(HasSubstr(std::string(64, '6'))));
}

TEST(Rendezvous, ARankKilledWhileOthersAreAwaitedEndsTheRendezvousAtOnce) {
  const ReservedPort port;
  for (const int lost : {0, 1}) {
    Ranks ranks;
    ranks.start_all(3, [&](int rank) -> std::string {
      Rendezvous rendezvous(environment_of(rank, 4, port.number()), agreeing_facts(), kPatient);
      return "met";
    });
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const Deadline limit = seconds_from_now(5);
    ranks.signal(lost, SIGKILL);
    EXPECT_EQ(ranks.end_of(lost).code, -SIGKILL);
    for (int rank = 0; rank < 3; ++rank) {
      if (rank == lost) continue;
      const Ending ending = ranks.end_of(rank);
      EXPECT_THAT(ending.said, HasSubstr(fmt::format("rank {}", lost)));
      EXPECT_EQ(ending.code, 74);
    }
    EXPECT_GT(seconds_until(limit), 0) << "the others are to end within 5 s";
  }
}

TEST(Rendezvous, ARankOfAnEarlierLifeOfTheJobIsNotTakenForThisOnes) {
  const ReservedPort port;
  Ranks ranks;
  const auto of_restart = [&](int rank, int restart) {
    RankEnvironment environment = environment_of(rank, 2, port.number());
    environment.restart_count = restart;
    return environment;
  };
  ranks.start([&] { return meet_and_talk(of_restart(0, 2)); });
  ranks.start([&]() -> std::string {
    Rendezvous rendezvous(of_restart(1, 1), agreeing_facts(), kShort);
    return "met";
  });
  const Ending stale = ranks.end_of(1);
  EXPECT_THAT(stale.said, HasSubstr("rank 0 is at restart 2, rank 1 at restart 1"));
  EXPECT_EQ(stale.code, 74);
  ranks.start([&] { return meet_and_talk(of_restart(1, 2)); });
  EXPECT_EQ(ranks.end_of(0).said, "met");
  EXPECT_EQ(ranks.end_of(2).said, "met");
}

/// Clients that have no business at rank 0, each kind in turn.
class Strangers {
 public:
  explicit Strangers(int port) : port_(port) {}

  void come(int count) {
    for (int i = 0; i < count; ++i) {
      UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const Address address = resolve("127.0.0.1", port_).front();
      if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0)
        continue;
      speak(socket.get(), i);
      sockets_.push_back(std::move(socket));
    }
  }
  [[nodiscard]] std::size_t size() const { return sockets_.size(); }

 private:
  static std::string greeting_at(int socket) {
    EXPECT_TRUE(wait_for_socket(socket, POLLIN, soon()));
    return receive_now(socket, 4096).bytes;
  }

  std::string hello_to(const std::string& greeting, const std::string& secret, int rank) const {
    RankEnvironment environment = environment_of(rank, 4, port_);
    ClientHandshake handshake(secret, identity_of(environment, Purpose::kStore, 0));
    return handshake.receive(greeting);
  }

  void speak(int socket, int kind) {
    const std::string secret = environment_of(0, 4, port_).secret;
    std::string bytes;
    switch (kind % 6) {
      case 0:  // silent
        break;
      case 1:  // garbage
        for (int i = 0; i < 5000; ++i) bytes += static_cast<char>(random_());
        break;
      case 2:  // oversize
        bytes = std::string(4, '\xFF') + std::string(200'000, 'x');
        break;
      case 3:  // wrong secret
        bytes = hello_to(greeting_at(socket), std::string(64, '0'), 2);
        break;
      case 4:  // replayed: the right answer to another greeting
        if (recorded_.empty()) recorded_ = hello_to(greeting_at(socket), secret, 2);
        bytes = recorded_;
        break;
      default:  // a rank that is there
        bytes = hello_to(greeting_at(socket), secret, 0);
        break;
    }
    if (kind % 6 == 4 && !was_recorded_) {
      was_recorded_ = true;  // only written down, not said
      return;
    }
    static_cast<void>(send_now(socket, bytes));
  }

  int port_;
  std::mt19937_64 random_{11};
  std::vector<UniqueFd> sockets_;
  std::string recorded_;
  bool was_recorded_ = false;
};

TEST(Rendezvous, AHundredStrangersDoNotDisturbIt) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start([&] { return meet_and_talk(environment_of(0, 4, port.number())); });
  // Rank 0 is there once it greets.
  while (true) {
    Strangers first(port.number());
    first.come(1);
    if (first.size() == 1) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // and has joined itself
  Strangers before(port.number());
  before.come(100);
  EXPECT_EQ(before.size(), 100U);
  ranks.start([&] { return meet_and_talk(environment_of(1, 4, port.number())); });
  Strangers between(port.number());
  between.come(100);
  for (const int rank : {2, 3})
    ranks.start([&] { return meet_and_talk(environment_of(rank, 4, port.number())); });
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(ranks.end_of(rank).said, "met");
}

TEST(Rendezvous, StrangersDoNotKeepWatchdogsOut) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start_all(3, [&](int rank) -> std::string {
    Rendezvous rendezvous(environment_of(rank, 3, port.number()), agreeing_facts(), kPatient);
    say("met;");
    std::this_thread::sleep_for(std::chrono::seconds(1));
    const Watchdog watchdog(rendezvous, kPatient.timeout_seconds);
    rendezvous.store().add("watched", 1);
    while (rendezvous.store().add("watched", 0) < 3) std::this_thread::yield();
    return "watched";
  });
  ranks.wait_until_said(0, "met;");
  Strangers strangers(port.number());
  strangers.come(200);
  EXPECT_EQ(strangers.size(), 200U);
  for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(ranks.end_of(rank).said, "met;watched");
}

TEST(Rendezvous, MoreSilentClientsThanItKeepsDoNotDisturbIt) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start([&] { return meet_and_talk(environment_of(0, 2, port.number())); });
  std::vector<UniqueFd> silent;
  while (silent.size() < 400) {
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Address address = resolve("127.0.0.1", port.number()).front();
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) == 0)
      silent.push_back(std::move(socket));
  }
  ranks.start([&] { return meet_and_talk(environment_of(1, 2, port.number())); });
  for (const int rank : {0, 1}) EXPECT_EQ(ranks.end_of(rank).said, "met");
}

/// Two ranks; rank 1 runs `body` on the shared store and the test gets what it returns.
std::string on_shared_store(const std::function<std::string(KeyValueStore&)>& body) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start_all(2, [&](int rank) -> std::string {
    Rendezvous rendezvous(environment_of(rank, 2, port.number()), agreeing_facts(), kPatient);
    std::string said = rank == 1 ? body(rendezvous.store()) : "served";
    if (rank == 1) rendezvous.store().set("done", "");
    static_cast<void>(rendezvous.store().get("done", soon()));
    return said;
  });
  EXPECT_EQ(ranks.end_of(0).said, "served");
  return ranks.end_of(1).said;
}

TEST(Store, AKeyThatNobodySetsIsNamedAtTheDeadline) {
  EXPECT_THAT(on_shared_store([](KeyValueStore& store) {
                return message_of<CommunicationError>([&] { store.get("never", seconds_from_now(0.3)); });
              }),
              HasSubstr("rank 1, waiting for never: no rank has set it within 0.3 s"));
}

TEST(Store, HoldsAnyBytesAndCounts) {
  EXPECT_EQ(on_shared_store([](KeyValueStore& store) -> std::string {
              std::string bytes;
              for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
              store.set("bytes", bytes);
              if (store.get("bytes", soon()) != bytes || !store.has("bytes") || store.has("byte"))
                return "wrong";
              store.set("large", std::string(1 << 20, 'x'));
              if (store.get("large", soon()).size() != 1 << 20) return "wrong size";
              if (store.add("count", 5) != 5 || store.add("count", -7) != -2) return "wrong sum";
              return store.get("count", soon());
            }),
            "-2");
}

TEST(Store, RefusesWhatDoesNotFitAndGoesOn) {
  EXPECT_THAT(
      on_shared_store([](KeyValueStore& store) -> std::string {
        std::string said =
            message_of<InternalError>([&] { store.set("large", std::string((1 << 20) + 1, 'x')); });
        store.set("text", "abc");
        said += message_of<InternalError>([&] { store.add("text", 1); });
        store.set("limit", std::to_string(INT64_MAX));
        said += message_of<InternalError>([&] { store.add("limit", 1); });
        said += message_of<InternalError>([&] {
          for (int i = 0; i < 100; ++i) store.set(fmt::format("fill/{}", i), std::string(1 << 20, 'x'));
        });
        return said + store.get("text", soon());
      }),
      AllOf(HasSubstr("large has 1048577 bytes, expected at most 1048576"), HasSubstr("text holds no number"),
            HasSubstr("limit would not fit 64 bits"), HasSubstr("does not fit, it holds"), HasSubstr("abc")));
}

TEST(Store, ServesThreadsWhileOneWaits) {
  EXPECT_EQ(on_shared_store([](KeyValueStore& store) {
              std::string got;
              std::thread waiting([&] { got = store.get("from the other thread", soon()); });
              for (int i = 0; i < 20; ++i) store.add("count", 1);
              store.set("from the other thread", "heard");
              waiting.join();
              return got;
            }),
            "heard");
}

}  // namespace
}  // namespace voca::engine::test
