#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>

#include "data/packed/dataset.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "engine/comm/communicator.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"

// Training over several processes, with the real program: started by its launcher, and by hand with the
// variables that torchrun and Slurm set.

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::Scratch;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

constexpr std::int64_t kGlobalBatch = 24;

class RanksOfTheProgram : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<Scratch>();
    make_small_tree(*scratch_ / "tree", 100);
    pack_small_tree(*scratch_ / "tree", data());
    pack_small_tree(*scratch_ / "tree", data("other_split.h5"), 1);
  }
  static void TearDownTestSuite() { scratch_.reset(); }
  void SetUp() override {
    if (!engine::with_gloo()) GTEST_SKIP() << "built without Gloo";
  }

  static fs::path data(const char* name = "packed.h5") { return *scratch_ / name; }
  [[nodiscard]] fs::path folder(const std::string& name) const {
    fs::create_directories(here_ / name);
    return here_ / name;
  }
  /// Of one rank among so many, which have the global batch together.
  static Words training(int world_size) {
    return small_training(data()) +
           Words{"--contrastive_scope=global", "--batch_size=" + std::to_string(kGlobalBatch / world_size),
                 "--comm_timeout=20",          "--run_dir=run",
                 "--save_path=best.pt",        "--save_last=last.pt"};
  }
  static Words launch(int world_size, const Words& words = {}) {
    return Words{"launch", "--nproc_per_node=" + std::to_string(world_size)} + words + Words{"--"};
  }
  static std::vector<float> weights_of(const fs::path& checkpoint) {
    std::vector<float> numbers;
    const engine::LoadedCheckpoint loaded = engine::read_training_checkpoint(checkpoint);
    for (const engine::NamedTensor& named : loaded.state_dicts.at(0).tensors) {
      std::vector<float> elements(static_cast<std::size_t>(named.tensor.elements()));
      named.tensor.copy_to(std::span<float>(elements));
      numbers.insert(numbers.end(), elements.begin(), elements.end());
    }
    return numbers;
  }
  /// ‖a − b‖ / ‖b‖. Not element by element: where a gradient is almost zero, AdamW makes whole steps of its
  /// rounding.
  static double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size() || b.empty()) return HUGE_VAL;
    double difference = 0;
    double size = 0;
    for (std::size_t i = 0; i < b.size(); ++i) {
      difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
      size += std::pow(static_cast<double>(b[i]), 2);
    }
    return std::sqrt(difference / size);
  }
  /// torchrun's variables for one rank of a node.
  static std::map<std::string, std::string> torchrun(int rank, int world_size, int port) {
    return {{"RANK", std::to_string(rank)},
            {"WORLD_SIZE", std::to_string(world_size)},
            {"LOCAL_RANK", std::to_string(rank)},
            {"LOCAL_WORLD_SIZE", std::to_string(world_size)},
            {"GROUP_RANK", "0"},
            {"MASTER_ADDR", "127.0.0.1"},
            {"MASTER_PORT", std::to_string(port)},
            {"TORCHELASTIC_RUN_ID", "a job"},
            {"TORCHELASTIC_RESTART_COUNT", "0"},
            {"VOCA_JOB_SECRET", "0123456789abcdef0123456789abcdef"}};
  }
  /// One process a rank, all in `folder`.
  static std::vector<Outcome> run_by_hand(const std::vector<Words>& words,
                                          const std::vector<std::map<std::string, std::string>>& variables,
                                          const fs::path& folder) {
    std::vector<std::unique_ptr<Process>> processes;
    for (std::size_t rank = 0; rank < words.size(); ++rank)
      processes.push_back(std::make_unique<Process>(words[rank], folder, variables[rank]));
    std::vector<Outcome> outcomes;
    outcomes.reserve(processes.size());
    for (const auto& process : processes) outcomes.push_back(process->wait());
    return outcomes;
  }
  /// A port that nobody had a moment ago.
  static int free_port();

  static std::unique_ptr<Scratch> scratch_;
  Scratch here_;
};
std::unique_ptr<Scratch> RanksOfTheProgram::scratch_;

int RanksOfTheProgram::free_port() {
  static std::mt19937 random(std::random_device{}());
  return std::uniform_int_distribution<int>(20000, 30000)(random);
}

TEST_F(RanksOfTheProgram, LaunchTrainsAsOneProcessDoes) {
  const fs::path one = folder("one");
  const Outcome alone = run(training(1) + Words{"--json"}, one);
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  const std::vector<ordered_json> want = metrics_of(one / "run");
  for (const int world_size : {2, 3, 4, 8}) {
    const fs::path many = folder("many" + std::to_string(world_size));
    const Outcome outcome = run(launch(world_size) + training(world_size), many);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_LE(relative_difference(weights_of(many / "last.pt"), weights_of(one / "last.pt")), 1e-5);
    const std::vector<ordered_json> got = metrics_of(many / "run");
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t line = 0; line < want.size(); ++line) {
      EXPECT_EQ(got[line]["kind"], want[line]["kind"]);
      EXPECT_EQ(got[line]["step"], want[line]["step"]);
      if (want[line]["kind"] == "test") continue;
      const double loss = want[line]["loss"];
      EXPECT_NEAR(got[line]["loss"].get<double>(), loss, 1e-5 * std::abs(loss)) << want[line].dump();
    }
  }
}

TEST_F(RanksOfTheProgram, TheSameJobGivesTheSameBits) {
  const fs::path first = folder("first");
  const fs::path second = folder("second");
  for (const fs::path& here : {first, second}) {
    const Outcome outcome = run(launch(3) + training(3), here);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  EXPECT_EQ(relative_difference(weights_of(first / "last.pt"), weights_of(second / "last.pt")), 0);
  EXPECT_EQ(metrics_of(first / "run"), metrics_of(second / "run"));
}

TEST_F(RanksOfTheProgram, EvalOverRanksMeasuresToTheLastDigit) {
  const fs::path here = folder("run");
  ASSERT_EQ(run(training(1), here).exit_code, 0);
  const Words eval{"eval",          "--checkpoint=best.pt", "--features_root=" + data().string(),
                   "--split=train", "--batch_size=4",       "--json"};
  const Outcome one = run(eval, here);
  ASSERT_EQ(one.exit_code, 0) << one.err;
  for (const int world_size : {2, 3, 4, 8}) {
    const Outcome many = run(launch(world_size) + eval, here);
    ASSERT_EQ(many.exit_code, 0) << many.err;
    EXPECT_EQ(many.json(), one.json()) << world_size;
  }
  const Words predict{"predict", "--checkpoint=best.pt", "--features_root=" + data().string(),
                      "--batch_size=4"};
  ASSERT_EQ(run(predict + Words{"--out=one.csv"}, here).exit_code, 0);
  const Outcome together = run(launch(3) + predict + Words{"--out=three.csv"}, here);
  ASSERT_EQ(together.exit_code, 0) << together.err;
  EXPECT_EQ(data::testing::read_bytes(here / "three.csv"), data::testing::read_bytes(here / "one.csv"));
}

/// A rank that worked alone would be waited for in vain.
TEST_F(RanksOfTheProgram, AllRanksTestTheBestCheckpointWithTheNumbersOfOne) {
  const fs::path here = folder("run");
  // The rank that reads a damaged video names it: batches of one are dealt out in turn.
  const data::Dataset dataset(data());
  std::vector<std::byte> bytes = data::testing::read_bytes(data());
  const std::vector<std::int64_t> samples = dataset.samples_of(data::Split::kTest);
  const std::int64_t victim = samples.at(1);
  std::vector<std::byte> row(dataset.row_bytes(data::Stream::kVisual));
  dataset.read_raw(data::Stream::kVisual, victim, 0, 1, row.data());
  const auto at = std::search(bytes.begin(), bytes.end(), row.begin(), row.end());
  ASSERT_NE(at, bytes.end());
  *at ^= std::byte{4};
  data::testing::write_bytes(here / "damaged.h5", bytes);

  const Words options{"--features_root=damaged.h5", "--batch_size=1", "--max_steps=2"};
  Words trained = training(2) + options + Words{"--json"};
  std::erase(trained, "--use_contrastive");  // needs pairs
  std::erase(trained, "--contrastive_scope=global");
  const Outcome outcome = run(launch(2) + trained, here);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err,
              ContainsRegex("\\[rank 1\\] warning: [^\n]*" + dataset.id(victim) + " are damaged"));
  const Outcome alone =
      run({"eval", "--checkpoint=best.pt", "--features_root=damaged.h5", "--json", "--batch_size=1"}, here);
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  EXPECT_EQ(outcome.json()["test"], alone.json());
}

TEST_F(RanksOfTheProgram, FourRanksStoppedContinueOnTwo) {
  const fs::path whole = folder("whole");
  ASSERT_EQ(run(launch(4) + training(4), whole).exit_code, 0);
  const fs::path here = folder("run");
  ASSERT_EQ(run(launch(4) + training(4) + Words{"--max_steps=3"}, here).exit_code, 0);
  const Outcome two = run(launch(2) + training(2) + Words{"--resume=auto"}, here);
  ASSERT_EQ(two.exit_code, 0) << two.err;
  EXPECT_THAT(two.err, HasSubstr("resumed"));
  EXPECT_LE(relative_difference(weights_of(here / "last.pt"), weights_of(whole / "last.pt")), 1e-5);
  // Another global batch would be another run.
  const fs::path other = folder("other");
  ASSERT_EQ(run(launch(4) + training(4) + Words{"--max_steps=3"}, other).exit_code, 0);
  const Outcome refused = run(launch(2) + training(4) + Words{"--resume=auto"}, other);
  EXPECT_EQ(refused.exit_code, 64);
  EXPECT_THAT(refused.err, HasSubstr("--batch_size is 6 on each of 2 ranks and was 6 on each of 4"));
}

TEST_F(RanksOfTheProgram, SignalToTheLauncherStopsAllAndResumeGivesTheSameBits) {
  const Words options = training(3) + Words{"--epochs=40", "--checkpoint_every=5epochs"};
  const fs::path whole = folder("whole");
  ASSERT_EQ(run(launch(3) + options, whole).exit_code, 0);
  const fs::path here = folder("run");
  Process process(launch(3) + options, here);
  const auto deadline = Clock::now() + std::chrono::seconds(60);
  while (Clock::now() < deadline && process.running() &&
         (!fs::exists(here / "run/metrics.jsonl") || fs::file_size(here / "run/metrics.jsonl") < 4000))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  process.signal(SIGTERM);
  const Outcome stopped = process.wait();
  ASSERT_EQ(stopped.exit_code, 75) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("--resume auto"));
  const Outcome resumed = run(launch(3) + options + Words{"--resume=auto"}, here);
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(relative_difference(weights_of(here / "last.pt"), weights_of(whole / "last.pt")), 0);
}

TEST_F(RanksOfTheProgram, WhatDiffersBetweenRanksIsNamedOnEveryRank) {
  struct Case {
    Words of_rank_1;
    const char* difference;
  };
  const std::vector<Case> cases{{{"--lr=0.5"}, "rank 1 differs from rank 0 in --lr: 0.5, 0.001"},
                                {{"--epochs=7"}, "rank 1 differs from rank 0 in --epochs: 7, 4"},
                                {{"--features_root=" + data("other_split.h5").string()},
                                 "rank 1 differs from rank 0 in the dataset's split"}};
  for (const Case& tested : cases) {
    const int port = free_port();
    const fs::path here = folder("mismatch");
    const std::vector<Outcome> outcomes = run_by_hand({training(2), training(2) + tested.of_rank_1},
                                                      {torchrun(0, 2, port), torchrun(1, 2, port)}, here);
    for (const Outcome& outcome : outcomes) {
      EXPECT_EQ(outcome.exit_code, 64) << outcome.err;
      EXPECT_THAT(outcome.message(), HasSubstr(tested.difference));
    }
    fs::remove_all(here / "run");
  }
}

TEST_F(RanksOfTheProgram, AWorldOfAnotherSizeIsNamed) {
  const int port = free_port();
  std::vector<std::map<std::string, std::string>> variables{torchrun(0, 2, port), torchrun(1, 3, port)};
  const std::vector<Outcome> outcomes =
      run_by_hand({training(2) + Words{"--comm_timeout=3"}, training(2) + Words{"--comm_timeout=3"}},
                  variables, folder("mismatch"));
  for (const Outcome& outcome : outcomes) EXPECT_NE(outcome.exit_code, 0);
  EXPECT_THAT(outcomes[0].err + outcomes[1].err, HasSubstr("rank 1 differs from rank 0 in WORLD_SIZE: 3, 2"));
}

TEST_F(RanksOfTheProgram, VariablesOfTorchrunAreEnough) {
  const int port = free_port();
  const fs::path here = folder("torchrun");
  auto variables = std::vector{torchrun(0, 2, port), torchrun(1, 2, port)};
  for (auto& of_rank : variables) of_rank.erase("VOCA_JOB_SECRET");
  for (auto& of_rank : variables) of_rank["XDG_RUNTIME_DIR"] = here.string();
  fs::permissions(here, fs::perms::owner_all);
  for (const Outcome& outcome : run_by_hand({training(2), training(2)}, variables, here))
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_FALSE(weights_of(here / "last.pt").empty());
}

TEST_F(RanksOfTheProgram, VariablesOfASlurmStepAreEnough) {
  const fs::path here = folder("slurm");
  fs::permissions(here, fs::perms::owner_all);
  std::vector<std::map<std::string, std::string>> variables;
  const std::string step = std::to_string(free_port() - 20000);
  for (const char* rank : {"0", "1"}) {
    variables.push_back({{"SLURM_JOB_ID", "4711"},
                         {"SLURM_STEP_ID", step},
                         {"SLURM_PROCID", rank},
                         {"SLURM_LOCALID", rank},
                         {"SLURM_NODEID", "0"},
                         {"SLURM_STEP_NUM_TASKS", "2"},
                         {"SLURM_NTASKS", "2"},
                         {"SLURM_STEP_NUM_NODES", "1"},
                         {"SLURM_STEP_TASKS_PER_NODE", "2"},
                         {"SLURM_STEP_NODELIST", "localhost"},
                         {"SLURM_JOB_NODELIST", "localhost"},
                         {"XDG_RUNTIME_DIR", here.string()}});
  }
  for (const Outcome& outcome : run_by_hand({training(2), training(2)}, variables, here))
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_FALSE(weights_of(here / "last.pt").empty());
}

/// Direct children of a process.
std::vector<pid_t> children_of(pid_t parent) {
  const std::string id = std::to_string(parent);
  std::ifstream file("/proc/" + id + "/task/" + id + "/children");
  std::vector<pid_t> children;
  for (pid_t child = 0; file >> child;) children.push_back(child);
  return children;
}

bool exists(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text[name_end + 2] != 'Z';
}

/// Signals one rank of a job after a while. True where there was one to signal and the job lost it.
class LostRank {
 public:
  LostRank(Process& job, int signal, std::chrono::milliseconds after, std::size_t which) {
    const auto end = Clock::now() + after;
    while (job.running() && Clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ranks_ = children_of(job.pid());
    if (!job.running() || ranks_.size() <= which) return;
    lost_ = ::kill(ranks_[which], signal) == 0;
    at_ = Clock::now();
    stopped_ = signal == SIGSTOP ? ranks_[which] : 0;
  }
  [[nodiscard]] bool lost() const { return lost_; }
  /// Seconds until the other ranks were gone.
  [[nodiscard]] double wait_for_others(double grace) {
    const auto gone = [&] {
      return std::none_of(ranks_.begin(), ranks_.end(),
                          [&](pid_t rank) { return rank != stopped_ && exists(rank); });
    };
    while (!gone() && seconds() < grace) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return seconds();
  }
  [[nodiscard]] bool orphans() const { return std::any_of(ranks_.begin(), ranks_.end(), exists); }

 private:
  [[nodiscard]] double seconds() const { return std::chrono::duration<double>(Clock::now() - at_).count(); }
  std::vector<pid_t> ranks_;
  bool lost_ = false;
  pid_t stopped_ = 0;
  Clock::time_point at_;
};

/// Minutes: the label slow.
class SlowRanks : public RanksOfTheProgram {};

/// Kills and stops at random: what is left must be gone in time, name the rank, and leave states that resume.
TEST_F(SlowRanks, RanksLostAtRandomEndTheJobInTime) {
  constexpr double kTimeout = 4;
  constexpr double kGrace = 5;
  const Words options =
      training(3) + Words{"--epochs=30", "--checkpoint_every=1steps", "--resume=auto", "--comm_timeout=4"};
  std::mt19937 random(3);
  int lost = 0;
  const fs::path here = folder("run");
  const auto begin_anew = [&] {
    for (const char* name : {"run", "best.pt", "last.pt"}) fs::remove_all(here / name);
  };
  for (int attempt = 0; attempt < 200 && lost < 50; ++attempt) {
    const bool stop = attempt % 5 == 4;
    const int signal = stop ? SIGSTOP : SIGKILL;
    const std::size_t which = random() % 3;
    Process job(launch(3) + options, here);
    LostRank rank(job, signal, std::chrono::milliseconds(50 + random() % 2500), which);
    if (!rank.lost()) {
      const Outcome whole = job.wait();
      ASSERT_EQ(whole.exit_code, 0) << whole.err;
      begin_anew();
      continue;
    }
    const double limit = kGrace + (stop ? kTimeout : 0);
    EXPECT_LE(rank.wait_for_others(3 * limit), limit) << "attempt " << attempt;
    const Outcome end = job.wait();
    EXPECT_FALSE(rank.orphans()) << "attempt " << attempt;
    // A rank may have been through with everything when it was signalled.
    if (end.exit_code == 0) {
      begin_anew();
      continue;
    }
    ++lost;
    EXPECT_THAT(end.err, HasSubstr("rank " + std::to_string(which))) << "attempt " << attempt;
  }
  EXPECT_EQ(lost, 50);
  const Outcome resumed = run(launch(3) + options, here);
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  const fs::path whole = folder("whole");
  ASSERT_EQ(run(launch(3) + options, whole).exit_code, 0);
  EXPECT_EQ(relative_difference(weights_of(here / "last.pt"), weights_of(whole / "last.pt")), 0);
}

TEST_F(RanksOfTheProgram, AFrozenRankIsKilledOnceTheOthersAreGone) {
  const fs::path here = folder("run");
  Process job(launch(3) + training(3) + Words{"--epochs=10000", "--comm_timeout=4"}, here);
  const auto deadline = Clock::now() + std::chrono::seconds(60);
  while (Clock::now() < deadline && job.running() && !fs::exists(here / "run/metrics.jsonl"))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const std::vector<pid_t> ranks = children_of(job.pid());
  ASSERT_EQ(ranks.size(), 3U);
  ::kill(ranks[1], SIGSTOP);
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.exit_code, 74) << outcome.err;
  const std::string pid = std::to_string(ranks[1]) + ")";
  EXPECT_THAT(outcome.err,
              AllOf(HasSubstr("launch: rank 1 (pid " + pid + " did not respond to the other ranks"),
                    Not(HasSubstr("SIGTERM"))));
  EXPECT_THAT(outcome.message(), AllOf(HasSubstr(", pid " + pid), HasSubstr("has been silent for")));
}

TEST_F(RanksOfTheProgram, AJobThatIsSuspendedLongerThanItsTimeOutGoesOn) {
  const fs::path here = folder("run");
  Process job(launch(2) + training(2) + Words{"--epochs=20", "--comm_timeout=4"}, here);
  const auto deadline = Clock::now() + std::chrono::seconds(60);
  while (Clock::now() < deadline && job.running() && !fs::exists(here / "run/metrics.jsonl"))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::vector<pid_t> processes = children_of(job.pid());
  ASSERT_EQ(processes.size(), 2U);
  // The ranks alone, as a user would pause them, then with the launcher, as Slurm does.
  for (int turn = 0; turn < 2; ++turn) {
    for (const pid_t process : processes) ::kill(process, SIGSTOP);
    std::this_thread::sleep_for(std::chrono::seconds(6));
    for (const pid_t process : processes) ::kill(process, SIGCONT);
    processes.push_back(job.pid());
  }
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("launch: every rank is stopped (SIGSTOP); SIGCONT lets them go on"));
}

TEST_F(RanksOfTheProgram, RestartsFinishTheJobWithTheBitsOfAnUndisturbedOne) {
  const Words options = training(3) + Words{"--epochs=20", "--checkpoint_every=1steps"};
  const fs::path whole = folder("whole");
  ASSERT_EQ(run(launch(3) + options, whole).exit_code, 0);
  const fs::path here = folder("run");
  Process job(launch(3, {"--max_restarts=3"}) + options, here);
  const auto deadline = Clock::now() + std::chrono::seconds(60);
  while (Clock::now() < deadline && job.running() &&
         (!fs::exists(here / "run/metrics.jsonl") || fs::file_size(here / "run/metrics.jsonl") < 3000))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const std::vector<pid_t> ranks = children_of(job.pid());
  ASSERT_EQ(ranks.size(), 3U);
  ::kill(ranks[1], SIGKILL);
  const Outcome outcome = job.wait();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("rank 1"), HasSubstr("resumed")));
  EXPECT_EQ(relative_difference(weights_of(here / "last.pt"), weights_of(whole / "last.pt")), 0);
  EXPECT_EQ(metrics_of(here / "run"), metrics_of(whole / "run"));
}

}  // namespace
}  // namespace voca::tools::testing
