#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <thread>

#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"
#include "tools/launch/job.h"

// The command with the real program. What a launcher does with ranks of any kind is in launch/.

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::Scratch;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::chrono::seconds kTestTimeout{60};

/// The rank of a launcher of one; 0 while there is none.
pid_t only_child(pid_t launcher) {
  const std::string id = std::to_string(launcher);
  std::ifstream file("/proc/" + id + "/task/" + id + "/children");
  pid_t child = 0;
  file >> child;
  return child;
}

template <typename Condition>
bool comes_true(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + kTestTimeout;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

class Launch : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    make_small_tree(*scratch_ / "tree", 60);
    pack_small_tree(*scratch_ / "tree", *scratch_ / "packed.h5");
    const Outcome undisturbed = run(training(), folder("whole"));
    ASSERT_EQ(undisturbed.exit_code, 0) << undisturbed.err;
  }
  static void TearDownTestSuite() {
    delete scratch_;
    scratch_ = nullptr;
  }
  static fs::path here() { return scratch_->path(); }
  /// A folder to run in.
  static fs::path folder(const std::string& name) {
    fs::create_directories(here() / name);
    return here() / name;
  }
  static Words training() {
    return small_training(here() / "packed.h5") +
           Words{"--epochs=12", "--run_dir=run", "--checkpoint_every=5steps", "--quiet"};
  }
  /// The name of the last state that the run in a folder has saved; "" before the first.
  static std::string newest_state(const fs::path& where) {
    std::string name;
    std::error_code error;
    fs::directory_iterator entry(where / "run/checkpoints", error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error))
      if (entry->path().extension() == ".resume") name = std::max(name, entry->path().filename().string());
    return name;
  }
  static void expect_bits_of_undisturbed(const fs::path& where) {
    EXPECT_TRUE(metrics_of(where / "run") == metrics_of(here() / "whole/run")) << where;
  }
  static void expect_refused(const Words& words, const std::string& holds,
                             const std::map<std::string, std::string>& environment = {}) {
    const Outcome outcome = run(words, here(), environment);
    EXPECT_EQ(outcome.exit_code, 64) << outcome.err;
    EXPECT_THAT(outcome.err, StartsWith("voca-engine: "));
    EXPECT_THAT(outcome.err, HasSubstr(holds));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_EQ(outcome.out, "");
  }

 private:
  static Scratch* scratch_;
};
Scratch* Launch::scratch_ = nullptr;

TEST_F(Launch, RefusesWhatCannotBeStartedInOneLine) {
  const Words train = Words{"--"} + training();
  expect_refused({"launch"}, "launch: needs a command after --");
  expect_refused({"launch", "--nproc_per_node=2", "train"}, "launch: needs a command after --");
  expect_refused({"launch", "--", "trian"}, "launch: unknown command \"trian\", did you mean \"train\"?");
  expect_refused({"launch", "--", "launch", "--", "train"}, "launch: does not start itself");
  expect_refused(Words{"launch", "--nprocs=2"} + train, "--nprocs: no such option of launch");
  expect_refused(Words{"launch", "--nproc-per-node=0"} + train,
                 "--nproc_per_node: is \"0\", expected a number of ranks, auto, gpu or cpu");
  expect_refused(Words{"launch", "--nproc_per_node=gpu"} + train, "--nproc_per_node gpu: no GPU can be used");
  expect_refused(Words{"launch", "--nnodes=2", "--node_rank=2"} + train,
                 "--node_rank: is 2, must be from 0 to 1");
  expect_refused(Words{"launch", "--nnodes=2"} + train, "--master_addr: is needed with --nnodes 2");
  expect_refused(Words{"launch", "--master_port=65536"} + train, "--master_port: is 65536");
  expect_refused(Words{"launch", "--max_restarts=-1"} + train, "--max_restarts: is -1");
  expect_refused(Words{"launch", "--grace_period=-1"} + train, "--grace_period: is -1");
  expect_refused(Words{"launch", "--nnodes=2", "--master_addr=10.0.0.1"} + train,
                 "VOCA_JOB_SECRET_FILE: is not set");
}

TEST_F(Launch, RefusesToBeStartedAsManyRanks) {
  const Words train = Words{"launch", "--"} + training();
  expect_refused(train, "LOCAL_RANK: is 1: launch was itself started as a rank", {{"LOCAL_RANK", "1"}});
  expect_refused(train, "srun has started launch 4 times", {{"SLURM_STEP_NUM_TASKS", "4"}});
}

TEST_F(Launch, SaysOnceWhatEveryRankWouldSay) {
  expect_refused({"launch", "--nproc_per_node=4", "--", "train", "--features_root=x", "--hiden=3"},
                 "did you mean --hidden?");
  expect_refused({"launch", "--nproc_per_node=4", "--", "train"}, "--features_root PATH is needed");
  const Words train{"launch", "--nproc_per_node=3", "--", "train", "--features_root=x"};
  expect_refused(train + Words{"--select_by=f1"}, "--select_by: \"f1\" is not one of auc, ap, loss, acc");
  expect_refused(train + Words{"--threshold_by=fpr=0"},
                 "--threshold_by: is \"fpr=0\", expected balanced_acc");
  expect_refused(train + Words{"--num_classes=3", "--select_by=ap"},
                 "--select_by ap: is defined for one logit (--num_classes 1)");
  expect_refused(train + Words{"--num_heads=5"}, "--hidden 768 is not divisible by --num_heads 5");
  expect_refused(train + Words{"--overwrite", "--resume"}, "--overwrite: contradicts --resume");
  expect_refused(train + Words{"--contrastive_weight=1"}, "--contrastive_weight: has no effect without");
  expect_refused(train + Words{"--device=cpu", "--precision=bf16"}, "--precision bf16: the run is on a CPU");
  expect_refused(
      {"launch", "--nproc_per_node=4", "--", "eval", "--batch_size=0", "--checkpoint=x", "--features_root=x"},
      "--batch_size: is 0");
  expect_refused({"launch", "--nproc_per_node=4", "--", "predict", "--checkpoint=x"}, "--features_root");
}

TEST_F(Launch, PrintsTheHelpOfTheCommandOnce) {
  const Outcome outcome = run({"launch", "--nproc_per_node=4", "--", "train", "--help"}, here());
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.out, run({"train", "--help"}, here()).out);
}

TEST_F(Launch, RefusesCommandsThatDoNotShareTheirWork) {
  for (const char* command : {"synth", "pack", "inspect", "plan", "doctor"}) {
    expect_refused({"launch", "--nproc_per_node=2", "--", command},
                   std::string("launch: ") + command + " does not share its work among ranks");
  }
}

TEST_F(Launch, FindsAMistypedPathBeforeARankIsStarted) {
  const Words start{"launch", "--nproc_per_node=2", "--max_restarts=3", "--"};
  struct Case {
    Words words;
    const char* message;
  };
  for (const Case& mistyped :
       {Case{training() + Words{"--features_root=nowhere.h5"},
             "--features_root nowhere.h5: no such file or folder"},
        Case{training() + Words{"--init_from=no.pt"}, "--init_from no.pt: no such file or folder"},
        Case{training() + Words{"--resume=no.resume"}, "--resume no.resume: no such file or folder"},
        Case{{"eval", "--checkpoint=no.pt", "--features_root=" + (here() / "packed.h5").string()},
             "--checkpoint no.pt: no such file or folder"},
        Case{{"predict", "--checkpoint=no.pt", "--features_root=nowhere.h5"},
             "--features_root nowhere.h5: no such file or folder"}}) {
    const Outcome outcome = run(start + mistyped.words, folder("mistyped"));
    EXPECT_EQ(outcome.exit_code, 74) << outcome.err;
    EXPECT_THAT(outcome.err, StartsWith(std::string("voca-engine: ") + mistyped.message));
    EXPECT_THAT(outcome.err, Not(HasSubstr("rank")));
  }
}

TEST_F(Launch, SaysWhyARankFailedAndDoesNotTryItAgain) {
  // A folder that cannot be made is found by rank 0 alone.
  const Outcome outcome = run(Words{"launch", "--nproc_per_node=2", "--max_restarts=3", "--"} + training() +
                                  Words{"--save_path=/proc/nowhere/best.pt"},
                              folder("quoted"));
  EXPECT_EQ(outcome.exit_code, 74) << outcome.err;
  EXPECT_THAT(outcome.message(), HasSubstr("launch: rank 0 (pid "));
  EXPECT_THAT(outcome.message(), HasSubstr("exit code 74: --save_path /proc/nowhere/best.pt: "));
  EXPECT_THAT(outcome.message(), HasSubstr("not started again: the start before failed in the same way"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("restart 2 of 3")));
}

TEST_F(Launch, NamesTheOptionOfAPortThatIsTaken) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const Outcome outcome = run(Words{"launch", "--nproc_per_node=2", "--max_restarts=3",
                                    "--master_port=" + std::to_string(::ntohs(address.sin_port)), "--"} +
                                  training(),
                              folder("port"));
  ::close(listener);
  EXPECT_EQ(outcome.exit_code, 64) << outcome.err;
  EXPECT_THAT(outcome.message(), HasSubstr("choose another port with --master_port"));
  EXPECT_THAT(outcome.err, Not(HasSubstr("restart 1")));
}

TEST_F(Launch, OfOneRankIsTheCommandItself) {
  const Outcome launched = run(Words{"launch", "--"} + training() + Words{"--json=1"}, folder("one"));
  ASSERT_EQ(launched.exit_code, 0) << launched.err;
  EXPECT_EQ(launched.json()["run_dir"], "run");
  expect_bits_of_undisturbed(folder("one"));
}

TEST_F(Launch, PredictionsOnStdoutAreThoseOfOneRank) {
  const fs::path where = folder("predictions");
  ASSERT_EQ(run(training() + Words{"--save_path=a.pt"}, where).exit_code, 0);
  const Words predicting{"predict", "--checkpoint=a.pt", "--features_root=" + (here() / "packed.h5").string(),
                         "--quiet"};
  const Outcome alone = run(predicting, where);
  const Outcome launched = run(Words{"launch", "--nproc_per_node=2", "--"} + predicting, where);
  EXPECT_EQ(launched.exit_code, 0) << launched.err;
  EXPECT_EQ(launched.out, alone.out);
}

TEST_F(Launch, EndsWithTheExitCodeOfARank) {
  std::ofstream(here() / "no.pt") << "no checkpoint";
  const Outcome outcome = run({"launch", "--nproc_per_node=2", "--max_restarts=3", "--", "eval",
                               "--checkpoint=no.pt", "--features_root=packed.h5"},
                              here());
  EXPECT_EQ(outcome.exit_code, 65);
  EXPECT_THAT(outcome.message(), HasSubstr("failed first: exit code 65: no.pt: "));
  EXPECT_THAT(outcome.message(), HasSubstr("; not started again: it would fail again"));
}

TEST_F(Launch, ItsRanksAreCalledByTheProgramsName) {
  Process launcher(Words{"launch", "--"} + training() + Words{"--epochs=400"}, folder("name"));
  EXPECT_TRUE(comes_true([&] {
    return name_of_process(only_child(launcher.pid())) == "voca-engine" &&
           fs::exists(folder("name") / "run/metrics.jsonl");
  }));
  EXPECT_EQ(launcher.name(), "voca-engine");
  launcher.signal(SIGTERM);
  EXPECT_EQ(launcher.wait().exit_code, 75);
}

TEST_F(Launch, RestartedTrainingEndsWithTheBitsOfAnUndisturbedOne) {
  const fs::path where = folder("killed");
  Process launcher(Words{"launch", "--max_restarts=3", "--"} + training(), where);
  pid_t last = 0;
  for (int kills = 0; kills < 3; ++kills) {
    ASSERT_TRUE(comes_true([&] {
      const pid_t rank = only_child(launcher.pid());
      if (rank == 0 || rank == last) return !launcher.running();
      last = rank;
      return true;
    }));
    if (!launcher.running()) break;
    // Once before it has saved anything, twice after it has saved more.
    const std::string before = newest_state(where);
    ASSERT_TRUE(
        comes_true([&] { return kills == 0 || newest_state(where) > before || !launcher.running(); }));
    ::kill(last, SIGKILL);
  }
  const Outcome outcome = launcher.wait();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("restart 1 of 3"));
  expect_bits_of_undisturbed(where);
}

TEST_F(Launch, RestartNeitherDiscardsNorContinuesTheWrongRun) {
  // A run that --overwrite discards: the same but for its learning rate, which forbids to continue it.
  const fs::path where = folder("over");
  ASSERT_EQ(run(training() + Words{"--lr=1e-2", "--max_steps=10"}, where).exit_code, 0);
  const fs::path config = where / "run/config.json";
  const auto old_run = fs::last_write_time(config);
  Process launcher(Words{"launch", "--max_restarts=2", "--"} + training() + Words{"--overwrite"}, where);
  ASSERT_TRUE(comes_true([&] { return only_child(launcher.pid()) != 0; }));
  const pid_t first = only_child(launcher.pid());
  ::kill(first, SIGKILL);  // before it has discarded anything
  ASSERT_TRUE(comes_true([&] {
    const pid_t rank = only_child(launcher.pid());
    return (rank != 0 && rank != first) || !launcher.running();
  }));
  const pid_t second = only_child(launcher.pid());
  ASSERT_TRUE(comes_true([&] {
    std::error_code nothing_yet;
    return !launcher.running() || (fs::last_write_time(config, nothing_yet) != old_run && !nothing_yet &&
                                   !newest_state(where).empty());
  }));
  ::kill(second, SIGKILL);  // with a state that must not be discarded, and a folder that holds a run
  const Outcome outcome = launcher.wait();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  expect_bits_of_undisturbed(where);
}

// A terminal sends Ctrl-C to the whole group, launcher and ranks; a rank that got two of them would die
// unsaved.
TEST_F(Launch, InterruptOfATerminalSavesAndStops) {
  const fs::path where = folder("interrupted");
  const pid_t launcher = ::fork();
  ASSERT_GE(launcher, 0);
  if (launcher == 0) {
    ::setpgid(0, 0);
    static_cast<void>(::chdir(where.c_str()) == 0);
    const std::string err = (where / "err").string();
    const Words words = Words{VOCA_PROGRAM, "launch", "--"} + training() + Words{"--epochs=1000"};
    std::vector<char*> pointers;
    for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
    pointers.push_back(nullptr);
    static_cast<void>(::freopen(err.c_str(), "w", stderr));
    ::execv(VOCA_PROGRAM, pointers.data());
    ::_exit(99);
  }
  const fs::path metrics = where / "run/metrics.jsonl";
  EXPECT_TRUE(comes_true([&] { return fs::exists(metrics) && !fs::is_empty(metrics); }));
  ::kill(-launcher, SIGINT);
  int status = 0;
  ASSERT_EQ(::waitpid(launcher, &status, 0), launcher);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 75);
  std::ifstream file(where / "err");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_THAT(text.str(),
              HasSubstr("launch: stopped by SIGINT; the state was saved, continue with --resume auto"));
}

TEST_F(Launch, NamesTheLimitOnOpenFilesThatLeavesNoRoomForConnections) {
  const std::string command =
      fmt::format("cd '{}' && prlimit --nofile=26:26 '{}' launch --nproc_per_node=2 -- {} >out 2>err",
                  folder("files").string(), VOCA_PROGRAM, fmt::join(training(), " "));
  const int status = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(status), 74);
  EXPECT_THAT(
      read_text(folder("files") / "err"),
      HasSubstr("26 open files are allowed, and a rank of 2 needs 32; raise the limit on open files"));
}

}  // namespace
}  // namespace voca::tools::testing
