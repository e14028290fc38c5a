#include "kernels/cpu/parallel.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <thread>
#include <vector>

namespace voca::kernels::cpu {
namespace {

class Parallel : public ::testing::Test {
 protected:
  void TearDown() override { set_threads(before_); }
  int before_ = threads();
};

TEST_F(Parallel, VisitsEveryIndexOnceWithAThreadBelowTheCount) {
  for (const int team : {1, 2, 3, 7}) {
    set_threads(team);
    for (const std::int64_t n : {0, 1, 2, 5, 100}) {
      std::vector<int> visits(static_cast<std::size_t>(n));
      std::vector<int> by(static_cast<std::size_t>(n));
      parallel_for(n, [&](std::int64_t i, int thread) {
        ++visits[static_cast<std::size_t>(i)];
        by[static_cast<std::size_t>(i)] = thread;
      });
      for (const int count : visits) EXPECT_EQ(count, 1);
      for (const int thread : by) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, team);
      }
    }
  }
}

TEST_F(Parallel, ScratchSlicesBelongToOneThreadAtATime) {
  set_threads(4);
  std::vector<std::int64_t> sums(4 * 16);
  parallel_for(1000, [&](std::int64_t i, int thread) { sums[static_cast<std::size_t>(thread) * 16] += i; });
  EXPECT_EQ(sums[0] + sums[16] + sums[32] + sums[48], 499500);
}

TEST_F(Parallel, TheCountHoldsInEveryThreadOfTheProcess) {
  set_threads(3);
  int seen = 0;
  std::thread([&] { seen = threads(); }).join();
  EXPECT_EQ(seen, 3);
}

}  // namespace
}  // namespace voca::kernels::cpu
