// The record says what was done: options that would do nothing, samples left out, tests not made, epochs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "data/packed/dataset.h"
#include "data/packed/pack.h"
#include "engine/base/atomic_file.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
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
  // Without a fitted threshold, the option of the run is all there is.
  ASSERT_EQ(run(training("--num_classes=3", "--save_path=three.pt"), here()).exit_code, 0);
  EXPECT_FALSE(facts(here() / "three.pt").contains("threshold_by"));
  const std::string seen = run({"inspect", "three.pt"}, here()).out;
  EXPECT_EQ(seen.find("threshold_by"), seen.rfind("threshold_by"));
  EXPECT_THAT(seen, HasSubstr("threshold_by: balanced_acc"));
  expect_refused(training("--threshold_by=best"), "--threshold_by: is \"best\"",
                 "fpr=P with P above 0 and below 1, such as fpr=0.01");
}

TEST_F(Records, AResumeThatIsNoneNamesTheWayForward) {
  expect_refused(training("--resume=a.pt"), "--resume a.pt: is a checkpoint", "--init_from a.pt");
  expect_refused(training("--resume=a.run"), "--resume a.run: is a run folder",
                 "--run_dir a.run --resume auto");
  expect_refused(training("--save_path=a.pt", "--resume=auto", "--epochs=4"),
                 "--resume auto: --epochs is 4 and was 2", "--extend_epochs");
  expect_refused(training("--run_dir=z", "--resume=a.run/checkpoints/", "--lr=0.1"),
                 "--resume a.run/checkpoints/: --lr is 0.1 and was 0.0003",
                 "a run is continued with the options");
  // What was not typed is said to be so, with the way to have it all.
  const std::string all = "which --config " + (here() / "a.run/config.json").string() + " gives";
  Words short_of_one = training("--run_dir=z", "--resume=a.run/checkpoints/");
  std::erase(short_of_one, "--hidden=16");
  expect_refused(short_of_one, "--resume a.run/checkpoints/: --hidden is 768 by default and was 16", all);
  engine::write_file_atomically(here() / "other.json", R"({"lr": 0.5})");
  expect_refused(training("--run_dir=z", "--resume=a.run/checkpoints/", "--config=other.json"),
                 "--resume a.run/checkpoints/: --lr is 0.5 by --config other.json and was 0.0003", all);
  const Outcome nothing = run(training("--resume=nothing"), here());
  EXPECT_EQ(nothing.exit_code, 74);
  EXPECT_THAT(nothing.message(), HasSubstr("--resume nothing: no such file or folder; auto continues"));
  // Into another folder, where the best checkpoint of the finished run is not.
  const Words elsewhere = training("--run_dir=z", "--resume=a.run/checkpoints");
  const Outcome lost = run(elsewhere, here());
  EXPECT_EQ(lost.exit_code, 74);
  EXPECT_THAT(lost.message(),
              AllOf(HasSubstr("--save_path z/best_model.pt: the best checkpoint of this finished run"),
                    HasSubstr("copy it there")));
  fs::copy_file(here() / "a.pt", here() / "z" / "best_model.pt");
  const Outcome resumed = run(elsewhere, here());
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
}

TEST_F(Records, ARunFolderThatWasMovedGoesOn) {
  const Words words = training("--max_steps=4", "--save_path=here/m.pt");
  ASSERT_EQ(run(words, here()).exit_code, 0);
  fs::create_directories(here() / "there");
  fs::rename(here() / "here" / "m.pt", here() / "there" / "m.pt");
  fs::rename(here() / "here" / "m.run", here() / "there" / "m.run");
  const Outcome moved = run(training("--save_path=there/m.pt", "--resume=auto"), here());
  EXPECT_EQ(moved.exit_code, 0) << moved.err;
  fs::remove(here() / "there" / "m.run" / "config.json");
  const Outcome unrecorded = run(training("--save_path=there/m.pt", "--resume=auto"), here());
  EXPECT_EQ(unrecorded.exit_code, 0) << unrecorded.err;
}

TEST_F(Records, AnotherCheckpointIsNotTakenForTheBestOfARun) {
  const Words words = training("--save_path=own.pt", "--seed=3", "--max_steps=4");
  ASSERT_EQ(run(words, here()).exit_code, 0);
  const std::string best = engine::read_text_file(here() / "own.pt", std::size_t{1} << 24);
  fs::copy_file(here() / "a.pt", here() / "own.pt", fs::copy_options::overwrite_existing);
  expect_refused(words + Words{"--resume=auto"}, "--save_path own.pt", "is not of this run");
  // One that is gone is missed while epochs are to come, and refused when there are none.
  fs::remove(here() / "own.pt");
  const Words further = training("--save_path=own.pt", "--seed=3", "--resume=auto");
  const Outcome gone = run(further, here(), {{"COLUMNS", "200"}});
  EXPECT_EQ(gone.exit_code, 0) << gone.err;
  EXPECT_THAT(gone.err, HasSubstr("warning: own.pt: the best checkpoint so far, of epoch"));
  fs::remove(here() / "own.pt");
  EXPECT_EQ(run(further, here()).exit_code, 74);
}

TEST_F(Records, AResumeOverLostStatesDestroysNothing) {
  const Words words = training("--save_path=gone.pt", "--seed=4");
  ASSERT_EQ(run(words, here()).exit_code, 0);
  const std::string before = engine::read_text_file(here() / "gone.pt", std::size_t{1} << 24);
  fs::remove_all(here() / "gone.run" / "checkpoints");
  expect_refused(words + Words{"--resume=auto"},
                 "--resume auto: gone.run holds a run whose training states are gone", "--overwrite");
  EXPECT_TRUE(engine::read_text_file(here() / "gone.pt", std::size_t{1} << 24) == before);
  EXPECT_EQ(metrics_of(here() / "gone.run").size(), 3U);
}

TEST_F(Records, OtherDataUnderARunIsSaid) {
  make_small_tree(here() / "tree2", 48);
  pack_small_tree(here() / "tree", here() / "changing.h5");
  const Words words = training("--features_root=changing.h5", "--save_path=changing.pt");
  ASSERT_EQ(run(words, here()).exit_code, 0);
  fs::remove(here() / "changing.h5");
  pack_small_tree(here() / "tree2", here() / "changing.h5");
  const Outcome outcome = run(words + Words{"--resume=auto"}, here());
  EXPECT_EQ(outcome.exit_code, 65);
  EXPECT_THAT(outcome.message(),
              HasSubstr("changing.h5 holds other videos, labels or splits than the run of"));
}

TEST_F(Records, OverwritingARunDiscardsItsEvents) {
  const auto events = [&] {
    return std::count_if(fs::directory_iterator(here() / "ev.run"), fs::directory_iterator(),
                         [](const auto& entry) {
                           return entry.path().filename().string().starts_with("events.out.tfevents");
                         });
  };
  const Words words = training("--save_path=ev.pt");
  ASSERT_EQ(run(words, here()).exit_code, 0);
  ASSERT_EQ(run(words + Words{"--overwrite"}, here()).exit_code, 0);
  EXPECT_EQ(events(), 1);
}

TEST_F(Records, QuietHidesProgressAndNoWarning) {
  ASSERT_EQ(run({"pack", "--features_root=tree", "--out=other.h5", "--split_seed=9"}, here()).exit_code, 0);
  for (const Words& words : {Words{"eval"}, Words{"predict", "--split=test"}}) {
    const Outcome outcome = run(words + Words{"--checkpoint=a.pt", "--features_root=other.h5", "--quiet"},
                                here(), {{"COLUMNS", "200"}});
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_THAT(outcome.err, StartsWith("warning: the split is not the one a.pt was trained with"));
  }
}

TEST_F(Records, ARunThatDivergedSaysSoAfterItsEpoch) {
  const Outcome outcome = run(training("--lr=1e30", "--epochs=1", "--run_dir=diverged"), here());
  EXPECT_EQ(outcome.exit_code, 65);
  EXPECT_THAT(outcome.message(),
              HasSubstr("after epoch 1 8 of 8 scores on the validation split are not finite"));
}

TEST_F(Records, ATrainingOfOneClassWarns) {
  fs::create_directories(here() / "reals");
  fs::copy(here() / "tree" / "real", here() / "reals" / "real", fs::copy_options::recursive);
  const Outcome outcome =
      run(training("--features_root=reals", "--select_by=loss", "--run_dir=reals.run", "--quiet"), here(),
          {{"COLUMNS", "200"}});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("warning: all 12 training videos are real: a detector cannot learn"));
}

TEST_F(Records, NumbersOfThreadsAndClassesHaveBounds) {
  for (const char* command : {"train", "plan"})
    expect_refused({command, "--features_root=f.h5", "--threads=100000"}, "--threads: is 100000",
                   "from 0 to 1024");
  expect_refused({"eval", "--checkpoint=a.pt", "--features_root=f.h5", "--threads=100000"},
                 "--threads: is 100000", "from 0 to 1024");
  expect_refused({"pack", "--features_root=tree", "--out=t.h5", "--num_workers=5000"},
                 "--num_workers: is 5000", "from 0 to 1024");
  expect_refused(training("--num_classes=1000000"), "--num_classes: is 1000000", "from 1 to 255");
}

TEST_F(Records, WhatNamesNoCheckpointIsAnswered) {
  expect_refused({"eval", "--checkpoint=a.pt,b.pt", "--features_root=f.h5"}, "--checkpoint a.pt,b.pt",
                 "predict averages several");
  expect_refused({"train", "--resume=auto", "--run_dir=a.run"}, "--features_root PATH is needed",
                 "--config a.run/config.json");
  expect_refused({"train", "--config=a.run", "--resume=auto"}, "--config a.run: is a folder",
                 "a.run/config.json");
  // Beside a folder that was moved lies a file of its checkpoint's name.
  fs::create_directories(here() / "moved");
  fs::copy(here() / "a.run", here() / "moved" / "a.run", fs::copy_options::recursive);
  const Words words{"predict", "--checkpoint=moved/a.run", "--features_root=f.h5"};
  EXPECT_THAT(run(words, here()).message(), HasSubstr("moved/a.pt, is not there"));
  ASSERT_EQ(
      run(training("--seed=8", "--save_path=moved/a.pt", "--run_dir=moved/other.run"), here()).exit_code, 0);
  EXPECT_THAT(run(words, here()).message(),
              HasSubstr("is not the checkpoint of the run of moved/a.run (--seed is 8"));
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
