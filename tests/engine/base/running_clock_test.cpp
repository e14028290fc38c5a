#include "engine/base/running_clock.h"

#include <gtest/gtest.h>

namespace voca::engine {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(RunningClock, CountsTheTimeBetweenQuestions) {
  const RunningClock::Time begin{};
  RunningClock clock(begin);
  EXPECT_EQ(clock.at(begin + milliseconds(300)) - begin, milliseconds(300));
  EXPECT_EQ(clock.at(begin + milliseconds(1300)) - begin, milliseconds(1300));
}

TEST(RunningClock, CountsASecondOfATimeInWhichNobodyAsked) {
  const RunningClock::Time begin{};
  RunningClock clock(begin);
  EXPECT_EQ(clock.at(begin + hours(2)) - begin, seconds(1));
  EXPECT_EQ(clock.at(begin + hours(2) + milliseconds(500)) - begin, milliseconds(1500));
}

}  // namespace
}  // namespace voca::engine
