#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>

#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"
#include "tools/evaluation.h"

// What people read fits their terminal, and lines of several processes stay whole.

namespace voca::tools::testing {
namespace {

using data::testing::Scratch;
using nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::size_t longest_line(const std::string& text) {
  std::size_t longest = 0;
  for (const std::string& line : lines_of(text)) longest = std::max(longest, line.size());
  return longest;
}

class Layout : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = std::make_unique<Scratch>();
    make_small_tree(*scratch_ / "tree", 60);
    pack_small_tree(*scratch_ / "tree", *scratch_ / "p.h5");
  }
  static void TearDownTestSuite() { scratch_.reset(); }
  static Outcome run_in(int columns, const Words& words) {
    return run(words, scratch_->path(), {{"COLUMNS", std::to_string(columns)}});
  }
  static Words training() {
    return small_training("p.h5") + Words{"--run_dir=r", "--overwrite", "--device=cpu"};
  }
  static std::unique_ptr<Scratch> scratch_;
};
std::unique_ptr<Scratch> Layout::scratch_;

TEST_F(Layout, HelpOfEveryCommandFollowsTheColumns) {
  for (const char* command :
       {"synth", "pack", "inspect", "train", "eval", "predict", "plan", "launch", "doctor"}) {
    for (const int columns : {40, 80, 120})
      EXPECT_LE(longest_line(run_in(columns, {command, "--help"}).out), static_cast<std::size_t>(columns))
          << command;
    // Where there is no terminal.
    EXPECT_EQ(run({command, "--help"}, scratch_->path(), {{"COLUMNS", ""}}).out,
              run_in(80, {command, "--help"}).out);
  }
  EXPECT_LE(longest_line(run_in(80, {"help"}).out), 80U);
}

TEST_F(Layout, ResultsAndProgressOfATrainingFitTheColumns) {
  for (const int columns : {50, 80}) {
    const Outcome trained = run_in(columns, training());
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    EXPECT_LE(longest_line(trained.out), static_cast<std::size_t>(columns)) << trained.out;
    EXPECT_LE(longest_line(trained.err), static_cast<std::size_t>(columns)) << trained.err;
    for (const Words& words :
         {Words{"plan", "--features_root=p.h5", "--hidden=16", "--num_heads=2"}, Words{"doctor"}})
      EXPECT_LE(longest_line(run_in(80, words).out), 80U);
  }
}

TEST_F(Layout, MeasuresHaveFourDigits) {
  const Outcome trained = run_in(80, training());
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const std::regex more("[0-9]\\.[0-9]{5,}");
  EXPECT_FALSE(std::regex_search(trained.out, more)) << trained.out;
  EXPECT_THAT(trained.out, ContainsRegex("best on val: epoch [0-9]+, by auc: [01]\\.[0-9][0-9][0-9][0-9]\n"));
}

TEST_F(Layout, TrainingBeginsWithFiveLinesOnWhatItIs) {
  const Outcome trained = run_in(200, training() + Words{"--threads=1"});
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const std::vector<std::string> lines = lines_of(trained.err);
  const auto first = std::find(lines.begin(), lines.end(), "run     r; tensorboard --logdir r");
  ASSERT_GE(lines.end() - first, 6) << trained.err;
  EXPECT_THAT(first[1],
              AllOf(StartsWith("data    p.h5: 36 train, 12 val, 12 test; "), HasSubstr("identities")));
  EXPECT_THAT(first[2],
              ContainsRegex("^model   hidden 16, 2 layers, 2 heads, 12 frames: [0-9,]+ parameters$"));
  EXPECT_EQ(first[3], "batch   8 x 1 rank = 8 videos; 4 steps an epoch, 16 in all");
  EXPECT_THAT(first[4], AllOf(StartsWith("device  cpu, 1 thread"), HasSubstr("; takes "), HasSubstr("iB of "),
                              HasSubstr("frames in memory, "), HasSubstr("the expected time follows")));
  EXPECT_THAT(trained.err, ContainsRegex("expected time: [0-9:]+ for 5 steps of "));
  EXPECT_EQ(run_in(80, training() + Words{"--quiet"}).err, "");
}

TEST_F(Layout, RanksLeaveRoomForTheirPrefix) {
  const Outcome launched = run_in(80, Words{"launch", "--nproc_per_node=2", "--"} + training());
  ASSERT_EQ(launched.exit_code, 0) << launched.err;
  EXPECT_LE(longest_line(launched.out), 80U) << launched.out;
  EXPECT_LE(longest_line(launched.err), 80U) << launched.err;
}

/// What each write() to its stderr wrote: a pipe of packets keeps them apart.
std::vector<std::string> writes_to_stderr(const Words& words, const std::filesystem::path& folder) {
  int ends[2];
  if (::pipe2(ends, O_DIRECT) != 0) return {};
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    static_cast<void>(::freopen("/dev/null", "w", stdout));
    if (::chdir(folder.c_str()) != 0) ::_exit(98);
    Words all = Words{VOCA_PROGRAM} + words;
    std::vector<char*> argv;
    for (std::string& word : all) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(VOCA_PROGRAM, argv.data());
    ::_exit(99);
  }
  ::close(ends[1]);
  std::vector<std::string> writes;
  std::vector<char> packet(65536);
  for (ssize_t size = 0; (size = ::read(ends[0], packet.data(), packet.size())) > 0;)
    writes.emplace_back(packet.data(), static_cast<std::size_t>(size));
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  return writes;
}

TEST_F(Layout, EachWriteToStderrIsWholeLines) {
  const auto ends_a_line = [](const std::string& text) { return text.ends_with('\n'); };
  const std::vector<std::string> refused = writes_to_stderr({"trian"}, scratch_->path());
  EXPECT_EQ(refused,
            std::vector<std::string>{"voca-engine: unknown command \"trian\", did you mean \"train\"?\n"});
  // Progress, messages, a warning of the log, the banner.
  const std::vector<std::string> trained = writes_to_stderr(training(), scratch_->path());
  EXPECT_GT(trained.size(), 4U);
  EXPECT_THAT(trained, Each(::testing::Truly(ends_a_line)));
}

TEST(EvaluationText, OfKClassesIsATableWithItsConfusionMatrix) {
  const ordered_json measured{{"split", "test"},
                              {"n", 10},
                              {"n_of_class", {5, 3, 2}},
                              {"loss", 0.75},
                              {"acc", 0.7},
                              {"balanced_acc", 0.6333333},
                              {"auc", nullptr},
                              {"auc_of_class", {0.9, 0.8, nullptr}},
                              {"recall_of_class", {0.8, 1.0, 0.0}},
                              {"confusion", {{4, 1, 0}, {0, 3, 0}, {1, 1, 0}}},
                              {"bad_samples", 0},
                              {"split_hash", "0123456789abcdef"}};
  EXPECT_EQ(evaluation_text(measured, 80),
            "test: n 10, split 0123456789ab\n"
            "  acc 0.7000  balanced acc 0.6333  macro auc undefined  loss 0.7500\n"
            "\n"
            "  label  precision  recall      F1        auc  n\n"
            "  0         0.8000  0.8000  0.8000     0.9000  5\n"
            "  1         0.6000  1.0000  0.7500     0.8000  3\n"
            "  2      undefined  0.0000  0.0000  undefined  2\n"
            "  label  taken for 0  for 1  for 2\n"
            "  0                4      1      0\n"
            "  1                0      3      0\n"
            "  2                1      1      0\n");
  EXPECT_LE(longest_line(evaluation_text(measured, 30)), 30U);
}

}  // namespace
}  // namespace voca::tools::testing
