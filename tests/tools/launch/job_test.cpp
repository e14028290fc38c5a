#include "tools/launch/job.h"
#include "engine/device.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "engine/distributed/environment.h"
#include "engine/distributed/variables.h"
#include "engine/error.h"
#include "tests/data/support/scratch.h"

// Launchers are processes of their own, their ranks shell scripts that do what a training rank does or should
// not do.

namespace voca::tools {
namespace {

namespace fs = std::filesystem;
using data::testing::message_of;
using data::testing::Scratch;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using Words = std::vector<std::string>;

constexpr std::chrono::seconds kPatience{30};  // of the tests, for what takes a fraction of a second

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// Whether it came true in time.
template <typename Condition>
bool comes_true(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return condition();
}

/// 'R' running, 'Z' ended and not waited for, …; 'X' when there is no such process.
char state_of(pid_t pid) {
  const std::string stat = read_text("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t name_end = stat.rfind(')');
  return name_end == std::string::npos ? 'X' : stat.at(name_end + 2);
}

bool is_gone(pid_t pid) {
  const char state = state_of(pid);
  return state == 'X' || state == 'Z';
}

Words shell(const std::string& script) {
  return {"sh", "-c", script};
}

class LaunchJob : public ::testing::Test {
 protected:
  LaunchJob() {
    job_.executable = "/bin/sh";
    job_.patience = {.after_failure = std::chrono::milliseconds(300),
                     .after_sigterm = std::chrono::milliseconds(300),
                     .after_stop = kPatience};
  }
  ~LaunchJob() override {
    if (launcher_ < 0) return;
    ::kill(launcher_, SIGKILL);
    ::waitpid(launcher_, nullptr, 0);
  }

  /// Starts a launcher with `ranks` of `script`; what they print goes to two files, or to one.
  void start(int ranks, const std::string& script, bool one_file = false) {
    job_.ranks_per_node = ranks;
    job_.words = shell("cd " + here_.path().string() + "; " + script);
    launcher_ = ::fork();
    ASSERT_GE(launcher_, 0);
    if (launcher_ != 0) return;
    ::setpgid(0, 0);
    constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND;
    if (job_.out == 1) job_.out = ::open((here_ / "out").c_str(), kFlags, 0600);
    job_.err = one_file ? job_.out : ::open((here_ / "err").c_str(), kFlags, 0600);
    // A single rank shares them.
    ::dup2(job_.out, 1);
    ::dup2(job_.err, 2);
    int code = 99;
    try {
      const JobEnd end = run_job(job_);
      std::ofstream(here_ / "message") << end.message;
      code = end.exit_code;
    } catch (const std::exception& error) {
      std::ofstream(here_ / "message") << error.what();
    }
    ::_exit(code);
  }
  /// Its exit code, −signal, or −1000 when it does not end.
  int wait() {
    int status = 0;
    const bool ended = comes_true([&] { return ::waitpid(launcher_, &status, WNOHANG) == launcher_; });
    if (!ended) return -1000;
    launcher_ = -1;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }
  int run(int ranks, const std::string& script) {
    start(ranks, script);
    return wait();
  }
  [[nodiscard]] std::string out() const { return read_text(here_ / "out"); }
  [[nodiscard]] std::string err() const { return read_text(here_ / "err"); }
  [[nodiscard]] std::string message() const { return read_text(here_ / "message"); }
  /// Lines of stdout, sorted: ranks run as they please.
  [[nodiscard]] std::vector<std::string> sorted_out() const {
    std::vector<std::string> lines = lines_of(out());
    std::sort(lines.begin(), lines.end());
    return lines;
  }
  /// Waits until each rank has written its pid to a file named for it, and returns them.
  [[nodiscard]] std::vector<pid_t> pids(int ranks) {
    std::vector<pid_t> result(static_cast<std::size_t>(ranks), 0);
    const bool all = comes_true([&] {
      for (int rank = 0; rank < ranks; ++rank) {
        std::istringstream text(read_text(here_ / ("pid." + std::to_string(rank))));
        text >> result[static_cast<std::size_t>(rank)];
      }
      return std::count(result.begin(), result.end(), 0) == 0;
    });
    EXPECT_TRUE(all) << err();
    return result;
  }

  Scratch here_;
  Job job_;
  pid_t launcher_ = -1;
};

const std::string kWritePid = "echo $$ > tmp.$RANK; mv tmp.$RANK pid.$RANK; ";  // NOLINT(cert-err58-cpp)
/// Of three: rank 1, which is to fail, lets the others come as far as their numbers.
const std::string kRank1WaitsForAll =  // NOLINT(cert-err58-cpp)
    "while [ $RANK = 1 ] && ! { [ -e pid.0 ] && [ -e pid.2 ]; }; do sleep 0.01; done; ";

// ---- What a rank is told

TEST_F(LaunchJob, TellsEachRankItsPlaceAsTorchrunDoes) {
  ASSERT_EQ(run(3, "env > env.$RANK"), 0) << message();
  std::set<std::string> shared;
  for (int rank = 0; rank < 3; ++rank) {
    std::map<std::string, std::string> values;
    for (const std::string& line : lines_of(read_text(here_ / ("env." + std::to_string(rank)))))
      values[line.substr(0, line.find('='))] = line.substr(line.find('=') + 1);
    const engine::Variables variables(values);
    const engine::RankEnvironment e = engine::rank_environment(variables, here_.path());
    EXPECT_EQ(e.rank, rank);
    EXPECT_EQ(e.world_size, 3);
    EXPECT_EQ(e.local_rank, rank);
    EXPECT_EQ(e.local_world_size, 3);
    EXPECT_EQ(e.nodes, 1);
    EXPECT_EQ(e.node, 0);
    EXPECT_EQ(e.master_addr, "127.0.0.1");
    EXPECT_EQ(e.meeting_port, e.master_port);
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

// ---- What ranks print

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
  job_.patience.after_stop = std::chrono::milliseconds(300);
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

// ---- Signals

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
  job_.patience.after_stop = std::chrono::milliseconds(300);
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
  job_.patience.of_one_keystroke = std::chrono::milliseconds(1);
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
  job_.patience.of_one_keystroke = kPatience;
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

// ---- Failures

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

TEST_F(LaunchJob, GivesRanksTimeToSayWhatTheyLost) {
  job_.patience.after_failure = kPatience;
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
  start(2, kWritePid + "while ! { [ -e pid.0 ] && [ -e pid.1 ]; }; do sleep 0.01; done; [ $RANK = 1 ] && " +
               fails_saying("rank 0 (host here, pid $(cat pid.0)) failed: x.h5: Permission denied", 74) +
               "while [ ! -e go ]; do sleep 0.01; done; " + fails_saying("x.h5: Permission denied", 74));
  const std::vector<pid_t> ranks = pids(2);
  job_.patience.after_failure = kPatience;
  ASSERT_TRUE(comes_true([&] { return is_gone(ranks[1]); }));
  std::ofstream(here_ / "go") << "";
  EXPECT_EQ(wait(), 74);
  EXPECT_EQ(message(), "launch: rank 0 (pid " + std::to_string(ranks[0]) +
                           ") failed first: exit code 74: x.h5: Permission denied; not started again "
                           "(--max_restarts 0)");
}

TEST_F(LaunchJob, KillsARankAtOnceThatTheOthersFoundSilent) {
  job_.patience.after_failure = job_.patience.after_sigterm = std::chrono::hours(1);
  start(3,
        kWritePid + "[ $RANK = 1 ] && kill -STOP $$; while [ ! -e pid.1 ]; do sleep 0.01; done; " +
            fails_saying("rank 1 (host here, pid $(cat pid.1)) has been silent for 4.0 s; it was last at: a "
                         "step",
                         74));
  const std::vector<pid_t> ranks = pids(3);
  EXPECT_EQ(wait(), 74);
  EXPECT_THAT(message(), HasSubstr("has been silent for 4.0 s"));
  EXPECT_THAT(err(), HasSubstr("launch: rank 1 (pid " + std::to_string(ranks[1]) +
                               ") is what the others waited for in vain: SIGKILL"));
  EXPECT_THAT(err(), Not(HasSubstr("SIGTERM")));
}

TEST_F(LaunchJob, DoesNotKillASilentRankWhileAnotherOneHasSomethingToSay) {
  job_.patience.after_failure = job_.patience.after_sigterm = std::chrono::hours(1);
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

// ---- Restarts

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
}  // namespace voca::tools
