#include "engine/rendezvous/link_probe.h"

#include <poll.h>
#include <signal.h>

#include <map>
#include <thread>

#include "engine/comm/communication_error.h"
#include "engine/rendezvous/socket.h"
#include "tests/engine/rendezvous/support/forked_ranks.h"

namespace voca::engine::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr RendezvousOptions kPatient{40};
constexpr LinkProbeOptions kUsual{40, 1e5};

/// A store in which the addresses of some ranks are others.
class Rerouted : public KeyValueStore {
 public:
  Rerouted(KeyValueStore& store, std::map<std::string, std::string> replaced)
      : store_(store), replaced_(std::move(replaced)) {}
  void set(const std::string& key, const std::string& value) override { store_.set(key, value); }
  std::string get(const std::string& key, Deadline deadline) override {
    std::string value = store_.get(key, deadline);
    const auto found = replaced_.find(key);
    return found == replaced_.end() ? value : found->second;
  }
  std::int64_t add(const std::string& key, std::int64_t amount) override { return store_.add(key, amount); }
  bool has(const std::string& key) override { return store_.has(key); }

 private:
  KeyValueStore& store_;
  std::map<std::string, std::string> replaced_;
};

/// A store in which rank 3's address passes for rank 1's.
class Crossed : public Rerouted {
 public:
  explicit Crossed(KeyValueStore& store) : Rerouted(store, {}) {}
  std::string get(const std::string& key, Deadline deadline) override {
    return Rerouted::get(key == "link/address/1" ? "link/address/3" : key, deadline);
  }
};

/// Runs `body` on each of `world_size` ranks that have met and expects all to end with an error like `with`.
void expect_all_fail(int world_size, const std::function<void(Rendezvous&)>& body,
                     const ::testing::Matcher<std::string>& with) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start_all(world_size, [&](int rank) -> std::string {
    Rendezvous rendezvous(environment_of(rank, world_size, port.number()), agreeing_facts(), kPatient);
    body(rendezvous);
    return "no error";
  });
  for (int rank = 0; rank < world_size; ++rank) {
    const Ending ending = ranks.end_of(rank);
    EXPECT_THAT(ending.said, with) << "of rank " << rank;
    EXPECT_EQ(ending.code, 74);
  }
}

TEST(LinkProbe, EveryLinkIsMeasuredWhateverTheNumberOfRanks) {
  for (const int world_size : {1, 2, 3, 4, 8}) {
    const ReservedPort port;
    Ranks ranks;
    ranks.start_all(world_size, [&](int rank) -> std::string {
      Rendezvous rendezvous(environment_of(rank, world_size, port.number()), agreeing_facts(), kPatient);
      const std::vector<ProbedLink> links = probe_links(rendezvous, kUsual);
      if (links.size() != (world_size == 1 ? 0U : static_cast<std::size_t>(world_size))) return "links";
      for (const ProbedLink& link : links) {
        if (link.to != (link.from + 1) % world_size) return "not a ring";
        if (link.round_trip_ms <= 0 || link.bulk_round_trip_ms <= 0) return "not measured";
        if (link.address.find("127.0.0.1 port ") != 0) return "address " + link.address;
      }
      return "closed";
    });
    for (int rank = 0; rank < world_size; ++rank) EXPECT_EQ(ranks.end_of(rank).said, "closed");
  }
}

TEST(LinkProbe, ABlockedLinkIsNamedOnEveryRank) {
  // Connections to rank 2 end at a socket that never says a word, as behind a firewall.
  const UniqueFd silent = listen_on(resolve("127.0.0.1", 0).front());
  const int port = local_address(silent.get()).port();
  expect_all_fail(
      4,
      [&](Rendezvous& rendezvous) {
        Rerouted store(rendezvous.store(), {{"link/address/2", fmt::format("{} 127.0.0.1", port)}});
        static_cast<void>(probe_links(rendezvous, store, {3, 1e5}));
      },
      AllOf(HasSubstr("rank 1 (host "), HasSubstr("rank 2 (host "), HasSubstr("is blocked"),
            HasSubstr(" ms")));
}

TEST(LinkProbe, AClosedPortIsNamedOnEveryRank) {
  const ReservedPort nobody;
  expect_all_fail(
      3,
      [&](Rendezvous& rendezvous) {
        Rerouted store(rendezvous.store(),
                       {{"link/address/1", fmt::format("{} 127.0.0.1", nobody.number())}});
        static_cast<void>(probe_links(rendezvous, store, {2, 1e5}));
      },
      AllOf(HasSubstr("the link from rank 0 (host "), HasSubstr("to rank 1 (host "),
            HasSubstr("is blocked")));
}

TEST(LinkProbe, ALinkThatLeadsToAnotherRankIsNamedOnEveryRank) {
  expect_all_fail(
      4,
      [](Rendezvous& rendezvous) {
        Crossed store(rendezvous.store());
        static_cast<void>(probe_links(rendezvous, store, {3, 1e5}));
      },
      AllOf(HasSubstr("the link from rank 0"), HasSubstr("to rank 1")));
}

/// Passes bytes on, each piece late; as a link that is far or overloaded. Until its process ends.
[[noreturn]] void forward_slowly(int listener, int to_port) {
  const UniqueFd client(::accept(listener, nullptr, nullptr));
  const UniqueFd server(::socket(AF_INET, SOCK_STREAM, 0));
  const Address address = resolve("127.0.0.1", to_port).front();
  if (::connect(server.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0)
    ::_exit(1);
  for (;;) {
    pollfd both[2]{{client.get(), POLLIN, 0}, {server.get(), POLLIN, 0}};
    ::poll(both, 2, -1);
    for (int i = 0; i < 2; ++i) {
      if (both[i].revents == 0) continue;
      const Received received = receive_now(both[i].fd, 1 << 20);
      if (received.is_closed) ::_exit(0);
      std::this_thread::sleep_for(std::chrono::milliseconds(150));
      std::string_view bytes = received.bytes;
      while (!bytes.empty()) {
        const ssize_t sent = ::send(both[1 - i].fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent < 0) ::_exit(0);
        bytes.remove_prefix(static_cast<std::size_t>(sent));
      }
    }
  }
}

TEST(LinkProbe, ASlowLinkIsNamedOnEveryRankWithItsTime) {
  UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
  const Address any = resolve("127.0.0.1", 0).front();
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&any.storage), any.length), 0);
  ASSERT_EQ(::listen(listener.get(), 8), 0);
  const int detour = local_address(listener.get()).port();
  expect_all_fail(
      3,
      [&](Rendezvous& rendezvous) {
        if (rendezvous.rank() == 0) {
          // The detour needs rank 1's own address, which it tells.
          std::thread([&] {
            const std::string told = rendezvous.store().get("link/address/1", seconds_from_now(30));
            if (::fork() == 0) {
              forward_slowly(listener.get(), std::stoi(told));
            }
          }).join();
        }
        Rerouted store(rendezvous.store(), {{"link/address/1", fmt::format("{} 127.0.0.1", detour)}});
        static_cast<void>(probe_links(rendezvous, store, {30, 200}));
      },
      AllOf(HasSubstr("the link from rank 0 (host "), HasSubstr("to rank 1 (host "),
            HasSubstr("is slow: a round trip takes "), HasSubstr("expected at most 200.0 ms")));
}

TEST(LinkProbe, ARankThatDiesWithinItIsNamed) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start_all(4, [&](int rank) -> std::string {
    Rendezvous rendezvous(environment_of(rank, 4, port.number()), agreeing_facts(), kPatient);
    if (rank == 2) {
      say("met;");
      std::this_thread::sleep_for(std::chrono::seconds(1000));
    }
    static_cast<void>(probe_links(rendezvous, kUsual));
    return "no error";
  });
  ranks.wait_until_said(2, "met;");
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const Deadline limit = seconds_from_now(5);
  ranks.signal(2, SIGKILL);
  for (const int rank : {0, 1, 3}) {
    const Ending ending = ranks.end_of(rank);
    EXPECT_THAT(ending.said, HasSubstr("rank 2 (host "));
    EXPECT_EQ(ending.code, 74);
  }
  EXPECT_GT(seconds_until(limit), 0);
}

TEST(LinkProbe, ARankThatNeverComesIsNamed) {
  const ReservedPort port;
  Ranks ranks;
  ranks.start_all(3, [&](int rank) -> std::string {
    Rendezvous rendezvous(environment_of(rank, 3, port.number()), agreeing_facts(), kPatient);
    if (rank == 1) std::this_thread::sleep_for(std::chrono::seconds(1000));
    static_cast<void>(probe_links(rendezvous, {1, 1e5}));
    return "no error";
  });
  for (const int rank : {0, 2}) {
    const Ending ending = ranks.end_of(rank);
    EXPECT_THAT(ending.said, HasSubstr("rank 1 (host "));
    EXPECT_EQ(ending.code, 74);
  }
}

}  // namespace
}  // namespace voca::engine::test
