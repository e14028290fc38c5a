// The collectives over Gloo, by forked ranks on the loopback interface.

#include "engine/comm/communicator.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "engine/base/random.h"
#include "engine/comm/communication_error.h"
#include "support/ranks.h"
#include "support/single_communicator.h"

namespace voca::engine {
namespace {

using std::chrono::milliseconds;
using testing::Ending;
using testing::run_ranks;

constexpr milliseconds kTimeout{30000};

std::unique_ptr<Communicator> communicator(KeyValueStore& store, int rank, int world_size,
                                           milliseconds timeout = kTimeout) {
  return make_gloo_communicator(store, rank, world_size, {.timeout = timeout});
}

template <typename T>
Tensor tensor_over(std::vector<T>& values, const char* name = "values") {
  return {.data = values.data(),
          .shape = {static_cast<std::int64_t>(values.size())},
          .dtype = kDTypeOf<T>,
          .device = DeviceKind::kCpu,
          .name = name};
}

/// What a rank brings: values that do not add up exactly, so that the order of a sum shows.
template <typename T>
std::vector<T> numbers(int rank, std::size_t count) {
  RandomStream random(3, RandomPurpose::kSynthetic, static_cast<std::uint64_t>(rank));
  std::vector<T> values(count);
  for (T& value : values) value = static_cast<T>(1000 * random.normal());
  return values;
}

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

void expect_done(const std::vector<Ending>& endings, const std::string& text) {
  for (std::size_t rank = 0; rank < endings.size(); ++rank) {
    EXPECT_EQ(endings[rank].signal, 0) << "rank " << rank;
    EXPECT_EQ(endings[rank].code, 0) << "rank " << rank << ": " << endings[rank].text;
    EXPECT_TRUE(endings[rank].text == text) << "rank " << rank << " has another result";
  }
}

class GlooWorld : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (!with_gloo()) GTEST_SKIP() << "built without Gloo";
  }
};

template <typename T>
std::vector<T> sum_in_rank_order(int world_size, std::size_t count) {
  std::vector<T> sum = numbers<T>(0, count);
  for (int r = 1; r < world_size; ++r) {
    const std::vector<T> part = numbers<T>(r, count);
    for (std::size_t i = 0; i < count; ++i) sum[i] += part[i];
  }
  return sum;
}

template <typename T>
void expect_sums(int world_size) {
  const std::vector<std::size_t> sizes{0, 1, 2, 7, 1000, 100003};
  const auto endings = run_ranks(world_size, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, world_size);
    std::string all;
    for (const std::size_t size : sizes) {
      std::vector<T> data = numbers<T>(rank, size);
      ranks->all_reduce_sum("numbers", tensor_over(data), nullptr);
      all += bytes_of(data);
    }
    return all;
  });
  std::string expected;
  for (const std::size_t size : sizes) expected += bytes_of(sum_in_rank_order<T>(world_size, size));
  expect_done(endings, expected);
}

TEST_P(GlooWorld, AllReduceIsTheSumInRankOrderToTheLastBitOnEveryRank) {
  expect_sums<float>(GetParam());
  expect_sums<double>(GetParam());
  expect_sums<std::int32_t>(GetParam());
  expect_sums<std::int64_t>(GetParam());
}

TEST_P(GlooWorld, AllGatherPutsTheRowsOfAllRanksInRankOrder) {
  const int world_size = GetParam();
  // Rank r has r · width rows, rank 0 none: parts of every size, the empty one included.
  constexpr std::int64_t kWidth = 3;
  std::vector<std::int64_t> rows(static_cast<std::size_t>(world_size));
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<float> expected;
  for (int r = 0; r < world_size; ++r) {
    const std::vector<float> part = numbers<float>(r, static_cast<std::size_t>(r * kWidth));
    expected.insert(expected.end(), part.begin(), part.end());
  }
  const auto endings = run_ranks(world_size, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, world_size);
    std::vector<float> part = numbers<float>(rank, static_cast<std::size_t>(rank * kWidth));
    std::vector<float> all(expected.size());
    ranks->all_gather_rows("rows", tensor_over(part).view({rank, kWidth}), rows,
                           tensor_over(all).view({static_cast<std::int64_t>(all.size()) / kWidth, kWidth}),
                           nullptr);
    std::vector<std::uint8_t> one{static_cast<std::uint8_t>(rank)};
    std::vector<std::uint8_t> each(static_cast<std::size_t>(world_size));
    ranks->all_gather("bytes", tensor_over(one), tensor_over(each), nullptr);
    return bytes_of(all) + bytes_of(each);
  });
  std::vector<std::uint8_t> each(static_cast<std::size_t>(world_size));
  std::iota(each.begin(), each.end(), std::uint8_t{0});
  expect_done(endings, bytes_of(expected) + bytes_of(each));
}

TEST_P(GlooWorld, BroadcastGivesEveryRankWhatTheRootHas) {
  const int world_size = GetParam();
  const int last = world_size - 1;
  const auto endings = run_ranks(world_size, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, world_size);
    std::string all;
    for (const int root : {0, last}) {
      for (const std::size_t size : {0U, 1U, 10007U}) {
        std::vector<double> data = numbers<double>(rank, size);
        ranks->broadcast("state", tensor_over(data), root, nullptr);
        all += bytes_of(data);
      }
    }
    return all;
  });
  std::string expected;
  for (const int root : {0, last})
    for (const std::size_t size : {0U, 1U, 10007U}) expected += bytes_of(numbers<double>(root, size));
  expect_done(endings, expected);
}

TEST_P(GlooWorld, GatherGivesTheValuesOfAllRanksInRankOrder) {
  const int world_size = GetParam();
  const auto endings = run_ranks(world_size, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, world_size);
    const double r = rank;
    return bytes_of(ranks->all_gather_values("decisions", std::vector<double>{r, -r})) +
           bytes_of(ranks->all_gather_values("nothing", std::vector<double>{}));
  });
  std::vector<double> expected;
  for (int r = 0; r < world_size; ++r) expected.insert(expected.end(), {double(r), -double(r)});
  expect_done(endings, bytes_of(expected));
}

TEST_P(GlooWorld, NoOneLeavesABarrierBeforeTheLastHasCome) {
  const int world_size = GetParam();
  const auto endings = run_ranks(world_size, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, world_size);
    for (int turn = 0; turn < 20; ++turn) {
      if (turn % world_size == rank) std::this_thread::sleep_for(milliseconds(5));
      store.add(fmt::format("come {}", turn), 1);
      ranks->barrier("turn");
      const std::int64_t come = store.add(fmt::format("come {}", turn), 0);
      if (come != world_size) return fmt::format("only {} had come", come);
    }
    return std::string("all");
  });
  expect_done(endings, "all");
}

INSTANTIATE_TEST_SUITE_P(Ranks, GlooWorld, ::testing::Values(1, 2, 3, 4, 8),
                         ::testing::PrintToStringParamName());

class GlooTrouble : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!with_gloo()) GTEST_SKIP() << "built without Gloo";
  }
};

// A rank dies somewhere in a collective: transfers are long, so that many a message is half through.
TEST_F(GlooTrouble, SurvivorsOfAKilledRankSayWhichOneTheyLost) {
  constexpr int kWorld = 4;
  for (int trial = 0; trial < 8; ++trial) {
    const int victim = trial % kWorld;
    const auto endings = run_ranks(kWorld, [&](int rank, KeyValueStore& store) {
      const auto ranks = communicator(store, rank, kWorld);
      ranks->barrier("start");
      if (rank == victim) {
        std::thread([&] {
          std::this_thread::sleep_for(std::chrono::microseconds(1713 * trial));
          ::kill(::getpid(), SIGKILL);
        }).detach();
      }
      std::vector<float> data(1 << 18, 1.0F);
      while (true) {
        ranks->all_reduce_sum("gradients", tensor_over(data), nullptr);
        static_cast<void>(ranks->all_gather_values("decisions", std::vector<double>{1.0}));
      }
      return std::string();
    });
    const double killed = endings[static_cast<std::size_t>(victim)].seconds;
    EXPECT_EQ(endings[static_cast<std::size_t>(victim)].signal, SIGKILL);
    for (int rank = 0; rank < kWorld; ++rank) {
      if (rank == victim) continue;
      const auto& [signal, code, text, seconds] = endings[static_cast<std::size_t>(rank)];
      EXPECT_EQ(signal, 0);
      EXPECT_EQ(code, 1);
      EXPECT_LT(seconds - killed, 5) << text;  // of a timeout of 30
      EXPECT_NE(text.find(fmt::format("rank {} of {}, after", rank, kWorld)), std::string::npos) << text;
      const std::string lost = "lost the connection to rank ";
      ASSERT_NE(text.find(lost), std::string::npos) << text;
      EXPECT_NE(text.find(std::to_string(victim), text.find(lost) + lost.size()), std::string::npos) << text;
    }
  }
}

TEST_F(GlooTrouble, ARankThatDoesNotComeIsNamedWhenTheTimeIsUp) {
  constexpr int kWorld = 3;
  const auto endings = run_ranks(kWorld, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, kWorld, milliseconds(1500));
    if (rank == 1) std::this_thread::sleep_for(std::chrono::seconds(3));
    std::vector<double> data{1, 2};
    ranks->all_reduce_sum("gradients", tensor_over(data), nullptr);
    return std::string("done");
  });
  for (const int rank : {0, 2}) {
    const Ending& ending = endings[static_cast<std::size_t>(rank)];
    EXPECT_EQ(ending.code, 1);
    EXPECT_NE(ending.text.find("all_reduce_sum of gradients"), std::string::npos) << ending.text;
    EXPECT_GE(ending.seconds, 1.4);
    // One of the two may be a moment earlier; the other one then loses it.
    EXPECT_TRUE(ending.text.find("still without rank 1") != std::string::npos ||
                ending.text.find("lost the connection to rank") != std::string::npos)
        << ending.text;
  }
  EXPECT_EQ(endings[1].code, 1) << "the late rank finds the others gone";
}

TEST_F(GlooTrouble, ARankStoppedInTheMiddleOfItsDataIsNamedWhenTheTimeIsUp) {
  constexpr int kWorld = 3;
  const auto endings = run_ranks(kWorld, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, kWorld, milliseconds(1500));
    if (rank == 2) {
      std::thread([pid = ::getpid()] {
        const pid_t waker = ::fork();
        if (waker == 0) {
          std::this_thread::sleep_for(std::chrono::seconds(3));
          ::kill(pid, SIGKILL);
          ::_exit(0);
        }
        std::this_thread::sleep_for(milliseconds(20));
        ::kill(pid, SIGSTOP);
      }).detach();
    }
    std::vector<float> data(1 << 20, 1.0F);
    while (true) ranks->all_reduce_sum("gradients", tensor_over(data), nullptr);
    return std::string();
  });
  for (const int rank : {0, 1}) {
    const std::string& text = endings[static_cast<std::size_t>(rank)].text;
    EXPECT_EQ(endings[static_cast<std::size_t>(rank)].code, 1);
    EXPECT_TRUE(text.find("still without rank 2") != std::string::npos ||
                text.find("still without rank 0, 2") != std::string::npos ||
                text.find("still without rank 1, 2") != std::string::npos ||
                text.find("lost the connection to rank") != std::string::npos)
        << text;
  }
}

TEST_F(GlooTrouble, RanksThatDoDifferentThingsAreToldSo) {
  const auto endings = run_ranks(2, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, 2);
    std::vector<float> data(rank == 0 ? 10 : 11);
    ranks->all_reduce_sum("gradients", tensor_over(data), nullptr);
    return std::string("done");
  });
  for (const Ending& ending : endings) {
    EXPECT_EQ(ending.code, 1);
    EXPECT_NE(ending.text.find("the ranks do different things"), std::string::npos) << ending.text;
  }
  EXPECT_NE(endings[0].text.find("rank 1 is in all_reduce_sum of gradients (44 bytes)"), std::string::npos);
}

TEST_F(GlooTrouble, RanksThatDisagreeOnTheRowsOfOthersAreToldSo) {
  const auto endings = run_ranks(2, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, 2);
    const std::vector<std::int64_t> rows =
        rank == 0 ? std::vector<std::int64_t>{1, 3} : std::vector<std::int64_t>{2, 2};
    std::vector<float> part(static_cast<std::size_t>(rows[static_cast<std::size_t>(rank)]));
    std::vector<float> all(4);
    ranks->all_gather_rows("rows", tensor_over(part), rows, tensor_over(all), nullptr);
    return std::string("done");
  });
  for (const Ending& ending : endings)
    EXPECT_NE(ending.text.find("the ranks do different things"), std::string::npos) << ending.text;
}

TEST_F(GlooTrouble, ARankThatEndsEarlyIsNoticed) {
  const auto endings = run_ranks(2, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, 2);
    if (rank == 0) ranks->barrier("next step");
    return std::string("done");
  });
  EXPECT_EQ(endings[0].code, 1);
  EXPECT_NE(endings[0].text.find("rank 1 has left the job"), std::string::npos) << endings[0].text;
  EXPECT_EQ(endings[1].code, 0);
}

TEST_F(GlooTrouble, AbortEndsACollectiveThatIsStuckAndTheOthersNotice) {
  const auto endings = run_ranks(2, [&](int rank, KeyValueStore& store) {
    const auto ranks = communicator(store, rank, 2);
    std::thread other([&] {
      if (rank == 0) std::this_thread::sleep_for(milliseconds(100));
      if (rank == 0) ranks->abort();
    });
    std::string text = "done";
    try {
      if (rank == 1)
        static_cast<void>(store.get("never", std::chrono::steady_clock::now() + milliseconds(300)));
      ranks->barrier("a barrier that rank 1 comes to late");
    } catch (const CommunicationError& error) {
      text = error.what();
    }
    other.join();
    if (rank == 1) return text;
    EXPECT_THROW(ranks->barrier("another one"), CommunicationError);
    return text;
  });
  EXPECT_NE(endings[0].text.find("aborted"), std::string::npos) << endings[0].text;
}

TEST_F(GlooTrouble, RanksThatDoNotMeetSayHowLongTheyWaited) {
  const auto endings = run_ranks(1, [&](int rank, KeyValueStore& store) {
    static_cast<void>(communicator(store, rank, 2, milliseconds(500)));
    return std::string("done");
  });
  EXPECT_EQ(endings[0].code, 1);
  EXPECT_NE(endings[0].text.find("gloo/main/1"), std::string::npos) << endings[0].text;
}

TEST(SingleCommunicator, IsAWorldOfOne) {
  const auto single = testing::make_single_communicator();
  EXPECT_EQ(single->world_size(), 1);
  std::vector<double> data{1, 2};
  single->all_reduce_sum("numbers", tensor_over(data), nullptr);
  EXPECT_EQ(data, (std::vector<double>{1, 2}));
  EXPECT_EQ(single->all_gather_values("numbers", data), data);
  std::vector<double> all(2);
  single->all_gather("numbers", tensor_over(data), tensor_over(all), nullptr);
  EXPECT_EQ(all, data);
}

}  // namespace
}  // namespace voca::engine
