// The record says what was done: options that would do nothing, samples left out, tests not made, epochs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string_view>

#include "data/dataset.h"
#include "data/pack.h"
#include "engine/atomic_file.h"
#include "engine/checkpoint/training_checkpoint.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::Scratch;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

class Records : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    make_small_tree(here() / "tree", 40);
    pack_small_tree(here() / "tree", here() / "f.h5");
    const Outcome trained = run(training("--save_path=a.pt", "--json"), here());
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    result_ = trained.json();
  }
  static void TearDownTestSuite() {
    delete scratch_;
    scratch_ = nullptr;
  }
  static fs::path here() { return scratch_->path(); }
  /// A small run without the contrastive loss; an option of `more` takes the place of the one here.
  template <typename... More>
  static Words training(const More&... more) {
    Words words{"train"};
    const Words given{more...};
    for (const char* option : {"--features_root=f.h5", "--hidden=16", "--num_layers=1", "--num_heads=2",
                               "--seq_len=12", "--batch_size=8", "--epochs=2", "--warmup_epochs=1"}) {
      const std::string name(option, std::string_view(option).find('=') + 1);
      const bool replaced = std::any_of(given.begin(), given.end(),
                                        [&](const std::string& word) { return word.starts_with(name); });
      if (!replaced) words.emplace_back(option);
    }
    return words + given;
  }
  static std::int64_t epoch_of(const std::string& checkpoint) {
    return run({"inspect", checkpoint, "--json"}, here()).json()["epoch"];
  }
  static void expect_refused(const Words& words, const std::string& begins, const std::string& holds) {
    const Outcome outcome = run(words, here());
    EXPECT_EQ(outcome.exit_code, 64) << outcome.err;
    EXPECT_THAT(outcome.message(), AllOf(StartsWith("voca-engine: " + begins), HasSubstr(holds)));
    EXPECT_EQ(outcome.out, "");
  }
  /// How often `text` stands in what a training that works says.
  static int times_said(const Words& words, const std::string& text) {
    const Outcome outcome =
        run(words + Words{"--overwrite", "--save_path=said.pt"}, here(), {{"COLUMNS", "200"}});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    int count = 0;
    for (std::size_t at = outcome.err.find(text); at != std::string::npos;
         at = outcome.err.find(text, at + 1))
      ++count;
    return count;
  }
  static nlohmann::ordered_json result_;

 private:
  static Scratch* scratch_;
};
Scratch* Records::scratch_ = nullptr;
nlohmann::ordered_json Records::result_;

TEST_F(Records, OptionsWithoutEffectAreRefused) {
  expect_refused(training("--contrastive_weight=0.7"), "--contrastive_weight", "without --use_contrastive");
  expect_refused(training("--contrastive_scope=global"), "--contrastive_scope", "without --use_contrastive");
  expect_refused(training("--no_val", "--select_by=acc"), "--select_by", "with --no_val");
  expect_refused(training("--no_val", "--threshold_by=acc"), "--threshold_by", "with --no_val");
  expect_refused(training("--no_val", "--eval_every=2"), "--eval_every", "with --no_val");
  expect_refused(training("--num_classes=2", "--threshold_by=acc"), "--threshold_by",
                 "with --num_classes above 1");
  expect_refused(training("--no_val", "--save_path=x.pt", "--save_last=y.pt"), "--save_path",
                 "with --no_val");
  expect_refused(training("--resume=auto", "--overwrite"), "--overwrite", "contradicts --resume");
  expect_refused(training("--resume=state", "--init_from=a.pt"), "--init_from", "contradicts --resume PATH");
  expect_refused(training("--extend_epochs=2"), "--extend_epochs", "add --resume auto");
}

TEST_F(Records, TheConfigOfARunIsNoCommandLine) {
  // It names every option, those without effect too.
  const Outcome outcome =
      run({"train", "--config=a.run/config.json", "--save_path=c.pt", "--run_dir=c.run"}, here());
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  // What was to be done with that run's files is not repeated.
  ASSERT_EQ(run(training("--save_path=d.pt", "--overwrite"), here()).exit_code, 0);
  const Outcome resumed = run({"train", "--config=d.run/config.json", "--resume=auto"}, here());
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
}

TEST_F(Records, InfoNceOfOneSampleIsRefused) {
  expect_refused(training("--use_contrastive", "--batch_size=1"), "--use_contrastive", "--batch_size 2");
  expect_refused(training("--use_contrastive", "--batch_size=1", "--grad_accum=8"), "--use_contrastive",
                 "--grad_accum does not help");
  EXPECT_EQ(times_said(training("--batch_size=1"), "--use_contrastive"), 0);
}

TEST_F(Records, WhatAPersonMayNotExpectIsSaidOnce) {
  // 24 training videos.
  EXPECT_EQ(times_said(training("--batch_size=7"), "leaves 3 of 24 training videos out"), 1);
  EXPECT_EQ(times_said(training("--batch_size=8"), "training videos out"), 0);
  EXPECT_EQ(times_said(training("--batch_size=64"), "training videos out"), 0);
  EXPECT_EQ(times_said(training("--warmup_epochs=2"), "--warmup_epochs 2 takes all 2 of --epochs"), 1);
  EXPECT_EQ(times_said(training("--warmup_epochs=9"), "the learning rate reaches 6e-05, not --lr 0.0003"), 1);
  EXPECT_EQ(times_said(training(), "warmup"), 0);
  EXPECT_EQ(times_said(training("--grad_accum=5"), "--grad_accum 5: an epoch has 3 batches only"), 1);
  EXPECT_EQ(times_said(training("--grad_accum=3"), "--grad_accum"), 0);
}

TEST_F(Records, ATestThatIsNotMadeIsSaid) {
  ASSERT_EQ(run({"pack", "--features_root=tree", "--out=untested.h5", "--split_ratios=0.7,0.3,0"}, here())
                .exit_code,
            0);
  const Words words = training("--features_root=untested.h5", "--run_dir=untested");
  const Outcome json = run(words + Words{"--json"}, here());
  ASSERT_EQ(json.exit_code, 0) << json.err;
  EXPECT_THAT(json.err, HasSubstr("there will be no test: the test split is empty"));
  EXPECT_TRUE(json.json()["test"].is_null());
  EXPECT_EQ(json.json()["no_test"], "the test split is empty");
  const Outcome text = run(words + Words{"--resume=auto"}, here());
  EXPECT_THAT(text.out, HasSubstr("no test: the test split is empty\n"));
  EXPECT_TRUE(result_["no_test"].is_null());
}

TEST_F(Records, PredictionsHaveTheHeadersOfTheirPage) {
  const std::string page = engine::read_text_file(
      fs::path(VOCA_GOLDEN_DIR).parent_path().parent_path() / "docs" / "evaluation.md", std::size_t{1} << 20);
  ASSERT_EQ(run(training("--num_classes=2", "--save_path=two.pt"), here()).exit_code, 0);
  for (const char* checkpoint : {"a.pt", "two.pt"}) {
    const std::string csv = run({"predict", "--checkpoint", checkpoint, "--features_root=f.h5"}, here()).out;
    EXPECT_THAT(page, HasSubstr("`" + csv.substr(0, csv.find('\n')) + "`")) << checkpoint;
  }
}

TEST_F(Records, EpochsCountFromOne) {
  std::vector<std::int64_t> epochs;
  for (const auto& line : metrics_of(here() / "a.run")) epochs.push_back(line["epoch"]);
  EXPECT_EQ(std::set<std::int64_t>(epochs.begin(), epochs.end()), (std::set<std::int64_t>{1, 2}));
  EXPECT_EQ(epochs.back(), 2) << "of the test";
  const auto best = result_["best"]["epoch"].get<std::int64_t>();
  EXPECT_GE(best, 1);
  EXPECT_EQ(epoch_of("a.pt"), best);
  const Outcome last = run(training("--save_path=b.pt", "--save_last=b_last.pt"), here());
  EXPECT_THAT(last.err, AllOf(HasSubstr("epoch 1/2"), HasSubstr("epoch 2/2"), Not(HasSubstr("epoch 0"))));
  EXPECT_EQ(epoch_of("b_last.pt"), 2);
}

TEST_F(Records, MeasuresForPeopleHaveFourDigits) {
  const Outcome trained = run(training("--save_path=digits.pt"), here());
  EXPECT_THAT(trained.out, Not(::testing::ContainsRegex("[01]\\.[0-9]{5}")));
  EXPECT_THAT(trained.out, ::testing::ContainsRegex("by auc: [01]\\.[0-9]{4}\n"));
}

TEST_F(Records, TheThresholdCarriesItsRule) {
  const auto facts = [](const fs::path& path) { return engine::read_training_checkpoint(path).engine; };
  EXPECT_EQ(facts(here() / "a.pt")["threshold_by"], "balanced_acc");
  for (const std::string& rule : {std::string("acc"), std::string("f1_fake"), std::string("fpr=0.2")}) {
    ASSERT_EQ(run(training("--save_path=rule.pt", "--overwrite", "--threshold_by=" + rule), here()).exit_code,
              0);
    EXPECT_EQ(facts(here() / "rule.pt")["threshold_by"], rule);
    const Words words{"eval", "--checkpoint=rule.pt", "--features_root=f.h5"};
    EXPECT_THAT(run(words, here()).out, HasSubstr("fitted on val by " + rule));
    EXPECT_EQ(run(words + Words{"--json"}, here()).json()["threshold_by"], rule);
  }
  expect_refused(training("--threshold_by=best"), "--threshold_by: \"best\"", "fpr=0.01");
}

TEST_F(Records, AResumeThatIsNoneNamesTheWayForward) {
  expect_refused(training("--resume=a.pt"), "--resume a.pt: is a checkpoint", "--init_from a.pt");
  expect_refused(training("--resume=a.run"), "--resume a.run: is a run folder",
                 "--run_dir a.run --resume auto");
  expect_refused(training("--save_path=a.pt", "--resume=auto", "--epochs=4"),
                 "--resume auto: --epochs is 4 and was 2", "--extend_epochs");
  expect_refused(training("--run_dir=z", "--resume=a.run/checkpoints", "--lr=0.1"),
                 "--resume a.run/checkpoints: --lr is 0.1 and was 0.0003",
                 "a run is continued with the options");
  const Outcome nothing = run(training("--resume=nothing"), here());
  EXPECT_EQ(nothing.exit_code, 74);
  EXPECT_THAT(nothing.message(), HasSubstr("--resume nothing: no such file or folder; auto continues"));
  // Into another folder, where the best checkpoint so far is not.
  const Words elsewhere = training("--run_dir=z", "--resume=a.run/checkpoints");
  const Outcome lost = run(elsewhere, here());
  EXPECT_EQ(lost.exit_code, 74);
  EXPECT_THAT(lost.message(), AllOf(HasSubstr("--save_path z/best_model.pt: the best checkpoint of the run"),
                                    HasSubstr("copy it there")));
  fs::copy_file(here() / "a.pt", here() / "z" / "best_model.pt");
  const Outcome resumed = run(elsewhere, here());
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
}

TEST_F(Records, AFinishedRunIsExtended) {
  const Words words = training("--save_path=e.pt", "--save_last=e_last.pt");
  expect_refused(words + Words{"--resume=auto", "--extend_epochs=2"},
                 "--extend_epochs 2: there is no run in e.run", "train it first");
  ASSERT_EQ(run(words, here()).exit_code, 0);
  const Outcome extended =
      run(words + Words{"--resume=auto", "--extend_epochs=2", "--json"}, here(), {{"COLUMNS", "200"}});
  ASSERT_EQ(extended.exit_code, 0) << extended.err;
  EXPECT_THAT(extended.err,
              AllOf(HasSubstr("extended: epochs 3 to 4 follow; the learning rate starts again at 3e-05"),
                    HasSubstr("epoch 4/4")));
  EXPECT_EQ(extended.json()["epochs"], 4);
  EXPECT_EQ(epoch_of("e_last.pt"), 4);
  expect_refused(words + Words{"--resume=auto"}, "--extend_epochs: is 0", "continue it with 2");
}

}  // namespace
}  // namespace voca::tools::testing
