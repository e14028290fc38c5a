#include "engine/base/signals.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string>
#include <thread>

#include "engine/base/error.h"

namespace voca::engine {
namespace {

class StopSignalsTest : public ::testing::TestWithParam<int> {};

TEST_P(StopSignalsTest, AskToStopAndSayWho) {
  const StopSignals signals;
  EXPECT_EQ(signals.signal(), 0);
  EXPECT_EQ(signals.reason(), nullptr);
  ASSERT_EQ(::raise(GetParam()), 0);
  EXPECT_EQ(signals.signal(), GetParam());
  EXPECT_EQ(signals.reason(), "SIG" + std::string(::sigabbrev_np(GetParam())));
}
INSTANTIATE_TEST_SUITE_P(All, StopSignalsTest, ::testing::Values(SIGTERM, SIGINT, SIGUSR1, SIGHUP));

TEST(StopSignals, TheFirstToAskIsTheReason) {
  const StopSignals signals;
  ::raise(SIGUSR1);
  ::raise(SIGTERM);
  ::raise(SIGTERM);
  ::raise(SIGINT);
  EXPECT_STREQ(signals.reason(), "SIGUSR1");
}

TEST(StopSignals, OneThatArrivesInAnotherThreadIsSeen) {
  const StopSignals signals;
  std::thread([] { ::pthread_kill(::pthread_self(), SIGUSR1); }).join();
  EXPECT_STREQ(signals.reason(), "SIGUSR1");
}

TEST(StopSignals, EachInstallationStartsUnasked) {
  {
    const StopSignals signals;
    ::raise(SIGINT);
  }
  const StopSignals signals;
  EXPECT_EQ(signals.reason(), nullptr);
  ::raise(SIGINT);  // the first of this one
  EXPECT_STREQ(signals.reason(), "SIGINT");
}

void interrupt_twice() {
  const StopSignals signals;
  ::raise(SIGINT);
  if (signals.signal() != SIGINT) ::_exit(1);
  ::raise(SIGINT);
  ::_exit(2);
}

TEST(StopSignalsDeathTest, ASecondInterruptEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // other tests of this program may have left threads
  EXPECT_EXIT(interrupt_twice(), ::testing::KilledBySignal(SIGINT), "");
}

TEST(StopSignalsDeathTest, TerminationAndThenOneInterruptDoNot) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const StopSignals signals;
        ::raise(SIGTERM);
        ::raise(SIGINT);
        ::_exit(signals.signal() == SIGTERM ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(StopSignals, ABrokenPipeIsAnError) {
  const StopSignals signals;
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ::close(ends[0]);
  EXPECT_EQ(::write(ends[1], "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
  ::close(ends[1]);
  EXPECT_EQ(signals.reason(), nullptr);
}

int handled = 0;
void count_signal(int) {
  ++handled;
}

TEST(StopSignals, WhatWasInstalledBeforeComesBack) {
  struct sigaction ours {};
  struct sigaction before {};
  ours.sa_handler = count_signal;
  ::sigaction(SIGUSR1, &ours, &before);
  {
    const StopSignals signals;
    ::raise(SIGUSR1);
    EXPECT_EQ(handled, 0);
  }
  ::raise(SIGUSR1);
  EXPECT_EQ(handled, 1);
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST(StopSignals, AnIgnoredHangUpStaysIgnored) {
  struct sigaction ours {};
  struct sigaction before {};
  ours.sa_handler = SIG_IGN;
  ::sigaction(SIGHUP, &ours, &before);
  {
    const StopSignals signals;
    ::raise(SIGHUP);
    EXPECT_EQ(signals.reason(), nullptr);
  }
  struct sigaction after {};
  ::sigaction(SIGHUP, &before, &after);
  EXPECT_EQ(after.sa_handler, SIG_IGN);
}

TEST(StopSignals, OneWithinAnotherSharesWhatHasAsked) {
  const StopSignals outer;
  ::raise(SIGTERM);
  {
    const StopSignals inner;
    EXPECT_EQ(inner.signal(), SIGTERM);
  }
  ::raise(SIGTERM);  // the handlers of the outer one are still there
  EXPECT_EQ(outer.signal(), SIGTERM);
}

}  // namespace
}  // namespace voca::engine
