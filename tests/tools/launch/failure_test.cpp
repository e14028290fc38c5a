// The first rank that fails decides how a job ends, and whether it is started again.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "tests/tools/launch/support/launched_job.h"

namespace voca::tools::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

/// Of three: rank 1, which is to fail, lets the others come as far as their numbers.
const std::string kRank1WaitsForAll =  // NOLINT(cert-err58-cpp)
    "while [ $RANK = 1 ] && ! { [ -e pid.0 ] && [ -e pid.2 ]; }; do sleep 0.01; done; ";

TEST_F(LaunchJob, EndsWithTheFirstFailureAndItsName) {
  start(3, "trap 'exit 0' TERM; " + kWritePid + kRank1WaitsForAll +
               "[ $RANK = 1 ] && exit 7; while :; do sleep 0.02; done");
  const std::vector<pid_t> ranks = pids(3);
  EXPECT_EQ(wait(), 7);
  EXPECT_EQ(message(), "launch: rank 1 (pid " + std::to_string(ranks[1]) +
                           ") failed first: exit code 7; not started again (--max_restarts 0)");
  EXPECT_THAT(err(), HasSubstr("2 of the ranks still run"));
}

TEST_F(LaunchJob, KillsRanksThatSurviveAFailure) {
  start(3, "trap '' TERM; " + kWritePid + kRank1WaitsForAll +
               "[ $RANK = 1 ] && kill -SEGV $$; while :; do sleep 0.02; done");
  const std::vector<pid_t> ranks = pids(3);
  EXPECT_EQ(wait(), 128 + SIGSEGV);
  EXPECT_THAT(message(), HasSubstr("failed first: ended by SIGSEGV"));
  for (const pid_t rank : ranks) EXPECT_EQ(state_of(rank), 'X');
}

TEST_F(LaunchJob, IsDoneThoughARankThatHasDoneItsWorkDoesNotEnd) {
  job_.grace.after_done = std::chrono::milliseconds(300);
  // Rank 2 ends first: rank 0 may take longer than this, and until it has ended rank 1 may too.
  start(3, kWritePid + "[ $RANK = 0 ] && sleep 1; [ $RANK = 1 ] && exec sleep 1000; exit 0");
  const std::vector<pid_t> ranks = pids(3);
  EXPECT_EQ(wait(), 0);
  EXPECT_THAT(err(), HasSubstr("launch: rank 1 (pid " + std::to_string(ranks[1]) +
                               ") did not end within 0 s of the others: SIGKILL\n"));
  EXPECT_THAT(err(), Not(HasSubstr("rank 0 (pid")));
  EXPECT_EQ(state_of(ranks[1]), 'X');
}

TEST_F(LaunchJob, EndsThoughRankZeroIsStoppedWhenTheOthersAreGone) {
  job_.grace.after_done = std::chrono::milliseconds(300);
  start(2, kWritePid + "[ $RANK = 0 ] && kill -STOP $$; exit 0");
  const std::vector<pid_t> ranks = pids(2);
  EXPECT_EQ(wait(), 128 + SIGKILL);  // its work may not be done
  EXPECT_THAT(err(), HasSubstr("launch: rank 0 (pid " + std::to_string(ranks[0]) + ") did not end within"));
  EXPECT_EQ(state_of(ranks[0]), 'X');
}

TEST_F(LaunchJob, WaitsForARankThatWasStoppedAndGoesOn) {
  job_.grace.after_done = std::chrono::seconds(2);
  start(2, kWritePid + "[ $RANK = 0 ] && kill -STOP $$ && sleep 3; exit 0");
  const std::vector<pid_t> ranks = pids(2);
  EXPECT_TRUE(comes_true([&] { return state_of(ranks[0]) == 'T'; }));
  ::kill(ranks[0], SIGCONT);
  EXPECT_EQ(wait(), 0);
  EXPECT_THAT(err(), Not(HasSubstr("did not end")));
}

TEST_F(LaunchJob, PromisesNothingOfAStoppedRankWhenAnotherHasFailed) {
  job_.grace.after_failure = std::chrono::milliseconds(300);
  job_.grace.after_sigterm = std::chrono::milliseconds(300);
  start(2,
        kWritePid +
            "[ $RANK = 1 ] && kill -STOP $$; while [ ! -e pid.1 ]; do sleep 0.01; done; sleep 0.3; exit 7");
  const std::vector<pid_t> ranks = pids(2);
  EXPECT_EQ(wait(), 7);
  EXPECT_THAT(err(), Not(HasSubstr("every rank is stopped")));
  EXPECT_EQ(state_of(ranks[1]), 'X');
}

TEST_F(LaunchJob, GivesRanksTimeToSayWhatTheyLost) {
  job_.grace.after_failure = kTestTimeout;
  ASSERT_EQ(run(3,
                "[ $RANK = 1 ] && kill -KILL $$; trap 'echo terminated' TERM; sleep 0.3; "
                "echo lost rank 1; exit 74"),
            128 + SIGKILL);
  EXPECT_EQ(sorted_out(), (Words{"[rank 0] lost rank 1", "[rank 2] lost rank 1"}));
}

TEST_F(LaunchJob, KnowsTheCauseAmongRanksFoundDeadTogether) {
  start(2, kWritePid + "while [ ! -e go ]; do sleep 0.01; done; [ $RANK = 1 ] && kill -KILL $$; exit 74");
  const std::vector<pid_t> ranks = pids(2);
  ::kill(launcher_, SIGSTOP);
  std::ofstream(here_ / "go") << "";
  ASSERT_TRUE(comes_true([&] { return state_of(ranks[0]) == 'Z' && state_of(ranks[1]) == 'Z'; }));
  ::kill(launcher_, SIGCONT);
  EXPECT_EQ(wait(), 128 + SIGKILL);
  EXPECT_THAT(message(), HasSubstr("rank 1"));
}

TEST_F(LaunchJob, KnowsTheCauseThoughTheRankThatLostItEndsFirst) {
  start(2, kWritePid + "[ $RANK = 0 ] && exit 74; while [ ! -e go ]; do sleep 0.01; done; exit 64");
  const std::vector<pid_t> ranks = pids(2);
  ASSERT_TRUE(comes_true([&] { return is_gone(ranks[0]); }));
  std::ofstream(here_ / "go") << "";
  EXPECT_EQ(wait(), 64);
  EXPECT_THAT(message(), HasSubstr("rank 1"));
}

/// A rank's last words, as run_program() writes them.
std::string fails_saying(const std::string& words, int code) {
  return "{ echo \"voca-engine: " + words + "\" >&2; exit " + std::to_string(code) + "; }; ";
}

TEST_F(LaunchJob, QuotesTheRankThatFailedFirst) {
  ASSERT_EQ(run(2, "[ $RANK = 1 ] && echo noise >&2 && " +
                       fails_saying("out.pt: No space left on device", 74) + "sleep 100"),
            74);
  EXPECT_THAT(message(),
              MatchesRegex("launch: rank 1 \\(pid [0-9]+\\) failed first: exit code 74: out.pt: No "
                           "space left on device; not started again .--max_restarts 0."));
}

TEST_F(LaunchJob, BlamesTheRankThatTheOthersName) {
  job_.grace.after_failure = kTestTimeout;
  start(2, kWritePid + "while ! { [ -e pid.0 ] && [ -e pid.1 ]; }; do sleep 0.01; done; [ $RANK = 1 ] && " +
               fails_saying("rank 0 (host here, pid $(cat pid.0)) failed: x.h5: Permission denied", 74) +
               "while [ ! -e go ]; do sleep 0.01; done; " + fails_saying("x.h5: Permission denied", 74));
  const std::vector<pid_t> ranks = pids(2);
  ASSERT_TRUE(comes_true([&] { return is_gone(ranks[1]); }));
  std::ofstream(here_ / "go") << "";
  EXPECT_EQ(wait(), 74);
  EXPECT_EQ(message(), "launch: rank 0 (pid " + std::to_string(ranks[0]) +
                           ") failed first: exit code 74: x.h5: Permission denied; not started again "
                           "(--max_restarts 0)");
}

TEST_F(LaunchJob, KillsARankAtOnceThatTheOthersFoundSilent) {
  job_.grace.after_failure = job_.grace.after_sigterm = std::chrono::hours(1);
  start(3,
        kWritePid + "[ $RANK = 1 ] && kill -STOP $$; while [ ! -e pid.1 ]; do sleep 0.01; done; " +
            fails_saying("rank 1 (host here, pid $(cat pid.1)) has been silent for 4.0 s; it was last at: a "
                         "step",
                         74));
  const std::vector<pid_t> ranks = pids(3);
  EXPECT_EQ(wait(), 74);
  EXPECT_THAT(message(), HasSubstr("has been silent for 4.0 s"));
  EXPECT_THAT(err(), HasSubstr("launch: rank 1 (pid " + std::to_string(ranks[1]) +
                               ") did not respond to the other ranks: SIGKILL"));
  EXPECT_THAT(err(), Not(HasSubstr("SIGTERM")));
}

TEST_F(LaunchJob, DoesNotKillASilentRankWhileAnotherOneHasSomethingToSay) {
  job_.grace.after_failure = job_.grace.after_sigterm = std::chrono::hours(1);
  const std::string silent =
      "rank 1 (host here, pid $(cat pid.1)) has been silent for 4.0 s; it was last at: x";
  start(3, kWritePid + "[ $RANK = 1 ] && kill -STOP $$; while [ ! -e pid.1 ]; do sleep 0.01; done; " +
               "while [ $RANK = 0 ] && [ ! -e go ]; do sleep 0.01; done; " + fails_saying(silent, 74));
  const std::vector<pid_t> ranks = pids(3);
  ASSERT_TRUE(comes_true([&] { return is_gone(ranks[2]); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(state_of(ranks[1]), 'T');
  std::ofstream(here_ / "go") << "";
  EXPECT_EQ(wait(), 74);
  EXPECT_EQ(state_of(ranks[1]), 'X');
}

TEST_F(LaunchJob, SaysWhatCannotBeStarted) {
  job_.executable = "/no/such/program";
  EXPECT_EQ(run(2, ""), 99);
  EXPECT_EQ(message(), "launch: rank 0: /no/such/program cannot be started: No such file or directory");
}

TEST_F(LaunchJob, StartsAgainWithTheCountAndTheCommandOfARestart) {
  job_.max_restarts = 3;
  job_.words_of_restart = [folder = here_.path().string()] {
    return shell("cd " + folder +
                 "; echo again $TORCHELASTIC_RESTART_COUNT; echo $MASTER_PORT >> ports; "
                 "[ $TORCHELASTIC_RESTART_COUNT = 2 ] || exit 1");
  };
  ASSERT_EQ(run(2, "echo first $TORCHELASTIC_RESTART_COUNT of $TORCHELASTIC_MAX_RESTARTS; kill -KILL $$"), 0)
      << message();
  EXPECT_EQ(sorted_out(), (Words{"[rank 0] again 1", "[rank 0] again 2", "[rank 0] first 0 of 3",
                                 "[rank 1] again 1", "[rank 1] again 2", "[rank 1] first 0 of 3"}));
  const std::vector<std::string> said = lines_of(err());
  ASSERT_EQ(said.size(), 2U) << err();
  EXPECT_THAT(
      said[0],
      MatchesRegex("launch: rank [01] \\(pid [0-9]+\\) failed first: ended by SIGKILL; restart 1 of 3"));
  EXPECT_THAT(said[1],
              MatchesRegex("launch: rank [01] \\(pid [0-9]+\\) failed first: exit code 1; restart 2 of 3"));
}

TEST_F(LaunchJob, GivesUpWhenTheRestartsAreUsedUp) {
  job_.max_restarts = 2;
  ASSERT_EQ(run(2, "echo x >> starts; " + fails_saying("another defect, $TORCHELASTIC_RESTART_COUNT", 70)),
            70);
  EXPECT_EQ(lines_of(read_text(here_ / "starts")).size(), 6U);
  EXPECT_THAT(message(), HasSubstr("exit code 70: another defect, 2; not started again: 2 of 2 restarts"));
}

TEST_F(LaunchJob, GivesUpWhereAStartFailedAsTheOneBefore) {
  job_.max_restarts = 5;
  ASSERT_EQ(run(2, "echo x >> starts; " + fails_saying("in.h5: Permission denied", 74)), 74);
  EXPECT_EQ(lines_of(read_text(here_ / "starts")).size(), 4U);
  EXPECT_THAT(message(),
              HasSubstr("exit code 74: in.h5: Permission denied; not started again: the start before "
                        "failed in the same way"));
}

TEST_F(LaunchJob, GoesOnWhileStartsBeginFromSomethingNew) {
  job_.max_restarts = 3;
  job_.begins_from = [folder = here_.path()] { return read_text(folder / "state"); };
  ASSERT_EQ(run(1, "echo x >> starts; echo x >> state; exit 74"), 74);
  EXPECT_EQ(lines_of(read_text(here_ / "starts")).size(), 4U);
  EXPECT_THAT(message(), HasSubstr("3 of 3 restarts are used up"));
}

TEST_F(LaunchJob, StartsARankAgainThatWasKilledTwice) {
  job_.max_restarts = 2;
  ASSERT_EQ(run(1, "[ $TORCHELASTIC_RESTART_COUNT = 2 ] || kill -KILL $$"), 0) << message();
}

class LaunchFinal : public LaunchJob, public ::testing::WithParamInterface<int> {};

TEST_P(LaunchFinal, IsNotStartedAgain) {
  job_.max_restarts = 5;
  ASSERT_EQ(run(2, "echo x >> starts; exit " + std::to_string(GetParam())), GetParam());
  EXPECT_EQ(lines_of(read_text(here_ / "starts")).size(), 2U);
}

INSTANTIATE_TEST_SUITE_P(DoneUsageDataStopped, LaunchFinal, ::testing::Values(0, 64, 65, 75));

TEST_F(LaunchJob, IsNotStartedAgainAfterASignalToStop) {
  job_.max_restarts = 5;
  start(2, "trap 'exit 74' TERM; " + kWritePid + "while :; do sleep 0.02; done");
  static_cast<void>(pids(2));
  ::kill(launcher_, SIGTERM);
  EXPECT_EQ(wait(), 74);
  EXPECT_THAT(message(), HasSubstr("after SIGTERM"));
  EXPECT_THAT(err(), Not(HasSubstr("restart")));
}

}  // namespace
}  // namespace voca::tools::testing
