#include "tools/launch/job.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <regex>
#include <set>
#include <sstream>

#include "engine/base/error.h"
#include "engine/core/device.h"
#include "engine/rendezvous/env_vars.h"
#include "engine/rendezvous/rank_environment.h"
#include "tests/tools/launch/support/launched_job.h"

// What ranks are told, what becomes of their output, and signals. How jobs fail and start again is in
// failure_test.cpp.

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::message_of;
using data::testing::Scratch;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

TEST_F(LaunchJob, TellsEachRankItsPlaceAsTorchrunDoes) {
  ASSERT_EQ(run(3, "env > env.$RANK"), 0) << message();
  std::set<std::string> shared;
  for (int rank = 0; rank < 3; ++rank) {
    std::map<std::string, std::string> values;
    for (const std::string& line : lines_of(read_text(here_ / ("env." + std::to_string(rank)))))
      values[line.substr(0, line.find('='))] = line.substr(line.find('=') + 1);
    const engine::EnvVars variables(values);
    const engine::RankEnvironment e = engine::rank_environment(variables, here_.path());
    EXPECT_EQ(e.rank, rank);
    EXPECT_EQ(e.world_size, 3);
    EXPECT_EQ(e.local_rank, rank);
    EXPECT_EQ(e.local_world_size, 3);
    EXPECT_EQ(e.nodes, 1);
    EXPECT_EQ(e.node, 0);
    EXPECT_EQ(e.master_addr, "127.0.0.1");
    EXPECT_EQ(e.rendezvous_port, e.master_port);
    EXPECT_GE(e.master_port, 1024);
    EXPECT_EQ(e.restart_count, 0);
    EXPECT_THAT(e.secret, MatchesRegex("[0-9a-f]{64}"));
    EXPECT_THAT(e.job, Not(""));
    shared.insert(e.secret + e.job + std::to_string(e.master_port));
  }
  EXPECT_EQ(shared.size(), 1U);
}

TEST_F(LaunchJob, MakesASecretForEachJobAndShowsItToNobody) {
  ::setenv("VOCA_JOB_SECRET_FILE", "/of/another/job", 1);
  std::set<std::string> secrets;
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(run(2,
                  "echo \"$VOCA_JOB_SECRET\" > secret.$RANK; tr '\\0' ' ' < /proc/$$/cmdline; "
                  "echo \"<$VOCA_JOB_SECRET_FILE>\"; exit 3"),
              3);
    const std::string secret = lines_of(read_text(here_ / "secret.0")).at(0);
    ASSERT_EQ(secret.size(), 64U);
    EXPECT_EQ(lines_of(read_text(here_ / "secret.1")).at(0), secret);
    for (const std::string& text : {out(), err(), message()}) EXPECT_THAT(text, Not(HasSubstr(secret)));
    secrets.insert(secret);
  }
  ::unsetenv("VOCA_JOB_SECRET_FILE");
  EXPECT_EQ(secrets.size(), 2U);
  EXPECT_THAT(out(), HasSubstr("<>"));
}

TEST_F(LaunchJob, CountsRanksOverNodes) {
  job_.nodes = 3;
  job_.node = 1;
  job_.master_addr = "node1.example";
  ::setenv("VOCA_JOB_SECRET", "a secret of the three", 1);
  const int code = run(2,
                       "echo $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $GROUP_RANK/$GROUP_WORLD_SIZE "
                       "$MASTER_ADDR:$MASTER_PORT $TORCHELASTIC_RUN_ID $VOCA_JOB_SECRET");
  ::unsetenv("VOCA_JOB_SECRET");
  ASSERT_EQ(code, 0) << message();
  const std::string rest = " 1/3 node1.example:29500 node1.example:29500 a secret of the three";
  EXPECT_EQ(sorted_out(), (Words{"[rank 2] 2/6 0/2" + rest, "[rank 3] 3/6 1/2" + rest}));
}

TEST_F(LaunchJob, RefusesSeveralNodesThatCouldNotMeet) {
  job_.words = shell("exit 0");
  job_.nodes = 2;
  EXPECT_THAT(message_of([&] { static_cast<void>(run_job(job_)); }), HasSubstr("--master_addr: is needed"));
  job_.master_addr = "10.0.0.1";
  EXPECT_THAT(message_of([&] { static_cast<void>(run_job(job_)); }),
              HasSubstr("VOCA_JOB_SECRET_FILE: is not set"));
}

TEST_F(LaunchJob, DividesTheCoresItMayUse) {
  job_.divide_cores = true;
  ASSERT_EQ(run(2, "grep Cpus_allowed_list /proc/self/status > cores.$RANK"), 0) << message();
  const std::vector<std::vector<int>> shares = divide_cores(engine::usable_cores(), 2);
  for (std::size_t rank = 0; rank < 2; ++rank) {
    const std::string text = read_text(here_ / ("cores." + std::to_string(rank)));
    const std::string list = std::to_string(shares[rank].front());
    EXPECT_THAT(text, HasSubstr("\t" + list));
    EXPECT_EQ(text.find_first_of("-,") == std::string::npos, shares[rank].size() == 1) << text;
  }
}

TEST(LaunchCores, AreSharedOutEvenlyOnce) {
  std::vector<int> cores(16);
  std::iota(cores.begin(), cores.end(), 4);
  for (int ranks = 1; ranks <= 16; ++ranks) {
    std::vector<int> all;
    for (const std::vector<int>& share : divide_cores(cores, ranks)) {
      EXPECT_GE(share.size(), 16U / static_cast<unsigned>(ranks));
      EXPECT_LE(share.size(), (15U + static_cast<unsigned>(ranks)) / static_cast<unsigned>(ranks));
      all.insert(all.end(), share.begin(), share.end());
    }
    EXPECT_EQ(all, cores) << ranks;
  }
  EXPECT_EQ(divide_cores({3, 9}, 4), (std::vector<std::vector<int>>{{3}, {3}, {9}, {9}}));
}

TEST(LaunchGpus, AreThoseThatCudaWouldSee) {
  const Scratch devices;
  for (const char* name : {"nvidia0", "nvidia1", "nvidia4", "nvidia10", "nvidiactl", "nvidia-uvm", "null"})
    std::ofstream(devices / name) << "";
  const std::string folder = devices.path().string();
  EXPECT_EQ(visible_gpus(folder, nullptr), 4);
  EXPECT_EQ(visible_gpus(folder, ""), 0);
  EXPECT_EQ(visible_gpus(folder, "-1"), 0);
  EXPECT_EQ(visible_gpus(folder, "2,0"), 2);
  EXPECT_EQ(visible_gpus(folder, "1,7,2"), 1);
  EXPECT_EQ(visible_gpus(folder, "GPU-8932f937,GPU-5a1b"), 2);
  EXPECT_EQ(visible_gpus(folder + "/none", nullptr), 0);
  EXPECT_EQ(visible_gpus(folder + "/none", "0"), 0);
}

TEST_F(LaunchJob, KeepsLinesWholeHoweverRanksWriteThem) {
  start(4,
        "i=0; while [ $i -lt 150 ]; do printf 'begin '; printf '%s ' $i; printf 'end\\n'; "
        "printf 'begin %s ' $i >&2; printf 'end\\n' >&2; i=$((i+1)); done",
        /*one_file=*/true);
  ASSERT_EQ(wait(), 0) << message();
  std::map<std::string, int> next;
  const std::regex form(R"((\[rank [0-3]\]) begin (\d+) end)");
  const std::vector<std::string> lines = lines_of(out());
  EXPECT_EQ(lines.size(), 4U * 2 * 150);
  for (const std::string& line : lines) {
    std::smatch parts;
    ASSERT_TRUE(std::regex_match(line, parts, form)) << line;
    ++next[parts[1].str()];
  }
  for (const auto& [rank, count] : next) EXPECT_EQ(count, 300) << rank;
}

TEST_F(LaunchJob, KeepsStdoutAndStderrApart) {
  ASSERT_EQ(run(2, "echo result; echo note >&2; printf 'last words'"), 0);
  EXPECT_EQ(sorted_out(),
            (Words{"[rank 0] last words", "[rank 0] result", "[rank 1] last words", "[rank 1] result"}));
  EXPECT_EQ(lines_of(err()).size(), 2U);
}

TEST_F(LaunchJob, PassesResultsForProgramsWithoutPrefix) {
  job_.plain_stdout = true;
  ASSERT_EQ(run(2, "[ $RANK = 1 ] || echo '{}'; echo note >&2"), 0);
  EXPECT_EQ(out(), "{}\n");
  EXPECT_THAT(err(), HasSubstr("[rank 1] note\n"));
}

TEST_F(LaunchJob, LeavesTheOutputOfASingleRankAlone) {
  ASSERT_EQ(run(1, "printf '\\r 50%%'; printf '\\r100%%'; file=$(readlink /proc/$$/fd/1); echo $file >&2"),
            0);
  EXPECT_EQ(out(), "\r 50%\r100%");
  EXPECT_EQ(err(), (here_ / "out").string() + "\n");  // the file itself: a terminal would be one
}

TEST_F(LaunchJob, OutlivesTheReaderOfItsStdout) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  ::close(ends[0]);
  job_.out = ends[1];
  start(2, "i=0; while [ $i -lt 50 ]; do echo a result of rank $RANK; i=$((i+1)); done; : > done.$RANK");
  ::close(ends[1]);
  EXPECT_EQ(wait(), 74);
  EXPECT_EQ(message(), "stdout: cannot be written");
  for (const char* done : {"done.0", "done.1"}) EXPECT_TRUE(fs::exists(here_ / done));
}

TEST_F(LaunchJob, HearsSignalsWhileNobodyReadsItsStdout) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  job_.out = ends[1];
  job_.grace.after_stop = std::chrono::milliseconds(300);
  // The trap comes first: a rank whose number is known is one that does not hear SIGTERM.
  start(2, "trap '' TERM; " + kWritePid + "while :; do echo more and more and more and more; done");
  ::close(ends[1]);
  const std::vector<pid_t> ranks = pids(2);
  // Both ranks hang in a write once everything between them and the reader is full. One that sleeps for
  // another reason does not for long.
  int looks_asleep = 0;
  ASSERT_TRUE(comes_true([&] {
    looks_asleep = state_of(ranks[0]) == 'S' && state_of(ranks[1]) == 'S' ? looks_asleep + 1 : 0;
    return looks_asleep == 20;
  }));
  ::kill(launcher_, SIGTERM);
  EXPECT_TRUE(comes_true([&] { return state_of(ranks[0]) == 'X' && state_of(ranks[1]) == 'X'; }));
  // The launcher has lines left, and waits for the reader.
  std::thread reader([&] {
    char buffer[65536];
    while (::read(ends[0], buffer, sizeof(buffer)) > 0) {
    }
  });
  EXPECT_EQ(wait(), 128 + SIGKILL);
  reader.join();
  ::close(ends[0]);
}

class LaunchSignal : public LaunchJob, public ::testing::WithParamInterface<std::pair<int, const char*>> {};

TEST_P(LaunchSignal, ReachesEveryRankWhichSavesAndStops) {
  const auto [number, name] = GetParam();
  const std::string expected = number == SIGUSR1 ? "USR1" : "TERM";
  start(2,
        "trap 'echo got TERM; exit 75' TERM; trap 'echo got USR1; exit 75' USR1; trap 'echo got HUP' HUP; " +
            kWritePid + "while :; do sleep 0.02; done");
  static_cast<void>(pids(2));
  ::kill(launcher_, number);
  EXPECT_EQ(wait(), 75);
  EXPECT_EQ(sorted_out(), (Words{"[rank 0] got " + expected, "[rank 1] got " + expected}));
  EXPECT_THAT(message(), HasSubstr(std::string("stopped by ") + name));
}

INSTANTIATE_TEST_SUITE_P(All, LaunchSignal,
                         ::testing::Values(std::pair(SIGTERM, "SIGTERM"), std::pair(SIGINT, "SIGINT"),
                                           std::pair(SIGUSR1, "SIGUSR1"), std::pair(SIGHUP, "SIGHUP")),
                         [](const auto& test) { return std::string(test.param.second); });

TEST_F(LaunchJob, KillsARankThatDoesNotStopInTime) {
  job_.grace.after_stop = std::chrono::milliseconds(300);
  start(2, "[ $RANK = 0 ] && trap 'exit 75' TERM || trap '' TERM; " + kWritePid +
               "while :; do sleep 0.02; done");
  const std::vector<pid_t> ranks = pids(2);
  ::kill(launcher_, SIGTERM);
  EXPECT_EQ(wait(), 128 + SIGKILL);
  EXPECT_THAT(message(),
              HasSubstr("rank 1 (pid " + std::to_string(ranks[1]) + ") failed first: ended by SIGKILL"));
  EXPECT_THAT(message(), HasSubstr("after SIGTERM"));
  EXPECT_THAT(err(), HasSubstr("launch: rank 1 (pid " + std::to_string(ranks[1]) + ") did not end in time"));
}

TEST_F(LaunchJob, KillsAtOnceAtTheSecondInterruptOfAPerson) {
  job_.grace.of_one_keystroke = std::chrono::milliseconds(1);
  start(2, "trap '' TERM INT; " + kWritePid + "while :; do sleep 0.02; done");
  static_cast<void>(pids(2));
  ::kill(launcher_, SIGINT);
  ASSERT_TRUE(comes_true([&] { return !err().empty(); }));  // it was seen
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  ::kill(launcher_, SIGINT);
  EXPECT_EQ(wait(), 128 + SIGKILL);
  EXPECT_THAT(err(), HasSubstr("SIGINT again: the ranks are killed"));
}

TEST_F(LaunchJob, TakesAnInterruptThatIsSentTwiceForOne) {
  job_.grace.of_one_keystroke = kTestTimeout;
  start(2, "trap '' INT; trap 'sleep 0.1; exit 75' TERM; " + kWritePid + "while :; do sleep 0.02; done");
  static_cast<void>(pids(2));
  ::kill(launcher_, SIGINT);
  ASSERT_TRUE(comes_true([&] { return !err().empty(); }));
  ::kill(launcher_, SIGINT);
  EXPECT_EQ(wait(), 75);
}

TEST_F(LaunchJob, TakesItsRanksAlongWhenItIsKilled) {
  start(3, "trap '' TERM INT HUP; " + kWritePid + "while :; do sleep 0.02; done");
  const std::vector<pid_t> ranks = pids(3);
  ::kill(launcher_, SIGKILL);
  EXPECT_EQ(wait(), -SIGKILL);
  for (const pid_t rank : ranks) EXPECT_TRUE(comes_true([&] { return is_gone(rank); })) << rank;
}

}  // namespace
}  // namespace voca::tools::testing
