#include "engine/trainer/schedule.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

// The expected rates are learning_rate() of tests/golden/model/reference.py.
constexpr double kRelative = 1e-14;

void expect_rate(double rate, double expected) {
  EXPECT_NEAR(rate, expected, kRelative * expected);
}

TEST(Schedule, EpochFormWarmsUpThenFollowsTheCosine) {
  const Schedule schedule({.lr = 3e-4, .epochs = 10, .warmup_epochs = 3, .steps_per_epoch = 7});
  constexpr std::array rates = {
      2.9999999999999997e-05, 0.00011999999999999999, 0.00020999999999999998, 0.0003,
      0.0002851948457514116,  0.00024371172537788062, 0.00018376687962646897, 0.00011723312037353099,
      5.7288274622119334e-05, 1.580515424858835e-05};
  for (std::size_t epoch = 0; epoch < rates.size(); ++epoch) {
    expect_rate(schedule.at(static_cast<std::int64_t>(epoch), 0), rates[epoch]);
    EXPECT_EQ(schedule.at(static_cast<std::int64_t>(epoch), 6),
              schedule.at(static_cast<std::int64_t>(epoch), 0));
  }
}

TEST(Schedule, StepFormCountsEverythingInSteps) {
  const Schedule schedule(
      {.kind = ScheduleKind::kStep, .lr = 1e-3, .epochs = 5, .warmup_epochs = 2, .steps_per_epoch = 7});
  expect_rate(schedule.at(0, 0), 0.0001);
  expect_rate(schedule.at(0, 1), 0.0001642857142857143);
  expect_rate(schedule.at(1, 0), 0.00055);
  expect_rate(schedule.at(1, 6), 0.0009357142857142857);
  expect_rate(schedule.at(2, 0), 0.001);
  expect_rate(schedule.at(2, 1), 0.0009944209976994517);
  expect_rate(schedule.at(3, 3), 0.000537827681746419);
  expect_rate(schedule.at(4, 6), 6.579002300548303e-06);
}

TEST(Schedule, WithoutWarmupStartsAtThePeak) {
  const Schedule schedule({.lr = 1e-3, .epochs = 4});
  expect_rate(schedule.at(0, 0), 0.001);
  expect_rate(schedule.at(1, 0), 0.0008536998372026805);
  expect_rate(schedule.at(2, 0), 0.0005005000000000001);
  expect_rate(schedule.at(3, 0), 0.00014730016279731955);
}

TEST(Schedule, WarmupLongerThanTheRunNeverDivides) {
  const Schedule longer({.lr = 1e-3, .epochs = 2, .warmup_epochs = 4});
  expect_rate(longer.at(1, 0), 1e-3 * (0.1 + 0.9 / 4));
  const Schedule equal({.lr = 1e-3, .epochs = 2, .warmup_epochs = 2});
  expect_rate(equal.at(1, 0), 1e-3 * 0.55);
  EXPECT_EQ(equal.at(2, 0), 1e-6);
}

TEST(Schedule, StaysAtTheMinimumPastTheEnd) {
  const Schedule schedule({.lr = 1e-3, .epochs = 4, .warmup_epochs = 1});
  EXPECT_EQ(schedule.at(4, 0), 1e-6);
  EXPECT_EQ(schedule.at(7, 0), 1e-6);
}

TEST(Schedule, RefusesNumbersOutOfRange) {
  const auto refused = [](const ScheduleOptions& options) {
    EXPECT_THROW(const Schedule schedule(options), InternalError);
  };
  refused({.lr = 0.0});
  refused({.lr = -1.0});
  refused({.lr = std::numeric_limits<double>::quiet_NaN()});
  refused({.epochs = 0});
  refused({.epochs = 1, .warmup_epochs = -1});
}

TEST(Schedule, NamesReadBack) {
  for (const ScheduleKind kind : {ScheduleKind::kEpoch, ScheduleKind::kStep})
    EXPECT_EQ(value_named<ScheduleKind>(name_of(kind)), kind);
  EXPECT_EQ(value_named<ScheduleKind>("cosine"), std::nullopt);
}

}  // namespace
}  // namespace voca::engine
