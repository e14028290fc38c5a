#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "engine/base/atomic_file.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"

// What the program says to words it does not know.

namespace voca::tools::testing {
namespace {

using data::testing::Scratch;
using ::testing::HasSubstr;

class WordsOfTheProgram : public ::testing::Test {
 protected:
  /// Expects exit code 64 and one line that holds a text.
  void expect_one_line(const Words& words, const std::string& holds) const {
    const Outcome outcome = run(words, here_.path());
    EXPECT_EQ(outcome.exit_code, 64) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(holds));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_EQ(outcome.out, "");
  }
  Scratch here_;
};

TEST_F(WordsOfTheProgram, AnUnknownCommandIsOneLineThatNamesTheNearest) {
  expect_one_line({"trian"}, "unknown command \"trian\", did you mean \"train\"?");
  expect_one_line({"evaluate", "--checkpoint=x"}, "did you mean \"eval\"?");
  expect_one_line({"pred"}, "did you mean \"predict\"?");
  expect_one_line({"frobnicate"}, "unknown command \"frobnicate\"; there are synth, pack, inspect, train");
  expect_one_line({"--lr", "3"}, "a command is needed before --lr");
}

TEST_F(WordsOfTheProgram, HelpOfACommandIsWhatItsOptionPrints) {
  for (const char* command : {"train", "launch", "doctor"}) {
    const Outcome help = run({"help", command}, here_.path());
    EXPECT_EQ(help.exit_code, 0) << help.err;
    EXPECT_EQ(help.out, run({command, "--help"}, here_.path()).out);
  }
  expect_one_line({"help", "trian"}, "did you mean \"train\"?");
  expect_one_line({"help", "train", "lr"}, "\"lr\" is one word too many");
}

TEST_F(WordsOfTheProgram, OptionsOfOtherProgramsAreAnsweredWithWhatReplacesThem) {
  const std::vector<std::pair<const char*, const char*>> of_train{
      {"--amp", "use --precision bf16"},
      {"--fp16", "use --precision fp16"},
      {"--bf16", "use --precision bf16"},
      {"--workers=4", "use --num_workers N"},
      {"--local_rank=0", "say it in the environment; leave it out"},
      {"--gpus=2", "voca-engine launch --nproc_per_node N -- train"},
      {"--nproc-per-node=2", "voca-engine launch starts the ranks"},
      {"--nnodes=2", "voca-engine launch starts the ranks"},
      {"--rdzv_endpoint=h:1", "voca-engine launch starts the ranks"},
      {"--world_size=2", "voca-engine launch starts the ranks"},
      {"--dist_url=env://", "voca-engine launch starts the ranks"},
      {"--data_path=x", "use --features_root PATH"},
      {"--output_dir=x", "use --run_dir DIR"},
      {"--ckpt=x", "use --init_from F.pt"},
      {"--model_path=x", "use --init_from F.pt"},
      {"--dropout_rate=0", "use --dropout P"},
      {"--learning_rate=1", "use --lr LR"},
      {"--bs=3", "use --batch_size B"},
      {"--num_epochs=3", "use --epochs E"}};
  for (const auto& [word, hint] : of_train) expect_one_line({"train", word}, hint);
  const std::vector<std::pair<const char*, const char*>> of_launch{
      {"--standalone", "leave it out"},
      {"--rdzv_backend=c10d", "by --master_addr and --master_port; leave it out"},
      {"--rdzv_endpoint=h:1", "use --master_addr HOST and --master_port PORT"},
      {"--no_python", "leave it out"},
      {"--gpus=2", "use --nproc_per_node N"},
      {"--features_root=x", "write it after --"}};
  for (const auto& [word, hint] : of_launch) expect_one_line({"launch", word, "--", "train"}, hint);
  expect_one_line({"eval", "--ckpt=x"}, "use --checkpoint F.pt");
  expect_one_line({"predict", "--output=x"}, "use --out FILE");
}

TEST_F(WordsOfTheProgram, ThePageOfOptionsIsWhatTheProgramHas) {
  const Outcome page = run({"help", "--markdown"}, here_.path());
  ASSERT_EQ(page.exit_code, 0) << page.err;
  const std::filesystem::path committed =
      std::filesystem::path(VOCA_GOLDEN_DIR).parent_path().parent_path() / "docs/options.md";
  EXPECT_TRUE(page.out == engine::read_text_file(committed, 1 << 20))
      << committed << " differs from what the program has; make it again: " << VOCA_PROGRAM
      << " help --markdown >docs/options.md";
}

TEST_F(WordsOfTheProgram, NeitherOfTwoCheckpointsIsIgnored) {
  expect_one_line({"eval", "--checkpoint=a.pt", "--checkpoint", "b.pt"},
                  "--checkpoint: given twice (a.pt, b.pt); give one\n");
  expect_one_line({"predict", "--checkpoint=a.pt", "--checkpoint=b.pt"},
                  "give one, or both with a comma: --checkpoint a.pt,b.pt");
  for (const char* list : {"a.pt,", ",a.pt", "a.pt,,b.pt"})
    expect_one_line({"predict", std::string("--checkpoint=") + list, "--features_root=x"},
                    "has an empty name between commas");
}

}  // namespace
}  // namespace voca::tools::testing
