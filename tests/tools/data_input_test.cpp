#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "data/packed/dataset.h"
#include "engine/base/atomic_file.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"

// What people name with --features_root, and what they then see.

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::read_bytes;
using data::testing::Scratch;
using data::testing::write_bytes;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// Of a line of predictions "id,label,split,logit,prob_real".
double logit_of(const std::string& line) {
  std::size_t at = 0;
  for (int comma = 0; comma < 3; ++comma) at = line.find(',', at) + 1;
  return std::stod(line.substr(at));
}

class DataInput : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    make_small_tree(here() / "tree", 40);
    pack_small_tree(here() / "tree", here() / "packed.h5");
    const Outcome trained =
        run(small_training("packed.h5") + Words{"--epochs=1", "--save_path=a.pt", "--quiet"}, here());
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    int video = 0;
    fs::create_directories(here() / "clips");
    for (const auto& entry : fs::directory_iterator(here() / "tree/real"))
      fs::copy(entry.path(), here() / "clips" / ("clip" + std::to_string(video++)),
               fs::copy_options::recursive);
  }
  static void TearDownTestSuite() {
    delete scratch_;
    scratch_ = nullptr;
  }
  static fs::path here() { return scratch_->path(); }
  static Outcome predict(const std::string& features, const Words& more = {},
                         const std::map<std::string, std::string>& environment = {}) {
    return run(Words{"predict", "--checkpoint=a.pt", "--features_root=" + features, "--quiet"} + more, here(),
               environment);
  }
  /// Writes packed.h5 to `out` with a flipped bit in every video of `split`.
  static void damage(data::Split split, const std::string& out) {
    const data::Dataset dataset(here() / "packed.h5");
    std::vector<std::byte> bytes = read_bytes(here() / "packed.h5");
    for (const std::int64_t sample : dataset.samples_of(split)) {
      std::vector<std::byte> row(dataset.row_bytes(data::Stream::kVisual));
      dataset.read_raw(data::Stream::kVisual, sample, 0, 1, row.data());
      const auto at = std::search(bytes.begin(), bytes.end(), row.begin(), row.end());
      ASSERT_NE(at, bytes.end());
      *at ^= std::byte{4};
    }
    write_bytes(here() / out, bytes);
  }
  static void expect_refused(const Words& words, int exit_code,
                             const ::testing::Matcher<std::string>& message) {
    const Outcome outcome = run(words, here());
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
    EXPECT_THAT(outcome.message(), message);
  }
  static nlohmann::ordered_json config_of(const std::string& run_dir) {
    const std::string text = engine::read_text_file(here() / run_dir / "config.json", std::size_t{1} << 20);
    return nlohmann::ordered_json::parse(text)["options"];
  }

 private:
  static Scratch* scratch_;
};
Scratch* DataInput::scratch_ = nullptr;

TEST_F(DataInput, PredictTakesAFolderOfVideosWithoutLabels) {
  const Outcome outcome = predict("clips/");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 21U);
  EXPECT_EQ(lines[0], "id,label,split,logit,prob_real");
  EXPECT_THAT(lines[1], StartsWith("clip0,,test,"));
}

TEST_F(DataInput, PredictTakesOneVideoAndLeavesNothingBesideIt) {
  const auto listing = [&] {
    std::set<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(here() / "clips")) names.insert(entry.path());
    return names;
  };
  const std::set<std::string> before = listing();
  double among_others = 0;
  for (const std::string& line : lines_of(predict("clips").out))
    if (line.starts_with("clip3,")) among_others = logit_of(line);
  fs::create_directories(here() / "tmp");
  for (const char* const name : {"clips/clip3", "clips/clip3/", "clips/./clip3/."}) {
    const Outcome outcome = predict(name, {}, {{"TMPDIR", (here() / "tmp").string()}});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const std::vector<std::string> lines = lines_of(outcome.out);
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_THAT(lines[1], StartsWith("clip3,,test,"));
    EXPECT_NEAR(logit_of(lines[1]), among_others, 1e-4);  // batches of other sizes round differently
  }
  EXPECT_EQ(listing(), before);
  EXPECT_TRUE(fs::is_empty(here() / "tmp"));
}

TEST_F(DataInput, TrainEvalAndPlanSayThatThereAreNoLabelsAndWhatDoes) {
  const auto no_labels = AllOf(HasSubstr("clips"), HasSubstr("has no labels"), HasSubstr("real/ and fake/"),
                               HasSubstr("predict works without"));
  EXPECT_EQ(run({"pack", "--features_root=clips", "--out=clips.h5", "--quiet"}, here()).exit_code, 0);
  for (const char* const features : {"clips", "clips/clip0", "clips.h5"}) {
    expect_refused({"eval", "--checkpoint=a.pt", std::string("--features_root=") + features}, 65, no_labels);
    expect_refused(small_training(features) + Words{"--run_dir=no"}, 65, no_labels);
    Words plan = small_training(features);
    plan.front() = "plan";
    expect_refused(plan, 65, no_labels);
  }
  for (const char* const features : {"clips", "clips/clip0"}) {
    expect_refused(
        {"predict", "--checkpoint=a.pt", std::string("--features_root=") + features, "--split_seed=3"}, 64,
        AllOf(HasSubstr("--split_seed 3"), HasSubstr("without splits")));
  }
  EXPECT_EQ(lines_of(predict("clips.h5").out), lines_of(predict("clips").out));
}

TEST_F(DataInput, WhereNothingCanBeWrittenBesideATreeTheUsersCacheHoldsIt) {
  fs::copy(here() / "clips", here() / "guarded", fs::copy_options::recursive);
  write_bytes(here() / "guarded.voca_cache", {});  // no folder can be made there
  const std::map<std::string, std::string> cache{{"XDG_CACHE_HOME", (here() / "cache").string()}};
  const Outcome first = run({"predict", "--checkpoint=a.pt", "--features_root=guarded"}, here(), cache);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("guarded.voca_cache: cannot be written"));
  EXPECT_THAT(first.err, HasSubstr("cache/voca-engine/trees/guarded-"));
  const Outcome second = run({"predict", "--checkpoint=a.pt", "--features_root=guarded"}, here(), cache);
  EXPECT_EQ(second.out, first.out);
  EXPECT_THAT(second.err, ::testing::Not(HasSubstr("packed")));
  write_bytes(here() / "nothing", {});
  const Outcome refused = predict("guarded", {}, {{"XDG_CACHE_HOME", (here() / "nothing").string()}});
  EXPECT_EQ(refused.exit_code, 74);
  EXPECT_THAT(refused.message(), HasSubstr("voca-engine pack --features_root guarded --out F.h5"));
}

TEST_F(DataInput, VideosThatCannotBeUsedAreToldEachTime) {
  fs::copy(here() / "clips", here() / "some", fs::copy_options::recursive);
  write_bytes(here() / "some/clip1/audio_embeddings.npz", {});
  const Words words{"predict", "--checkpoint=a.pt", "--features_root=some"};
  const Outcome first = run(words, here());
  EXPECT_THAT(first.err, HasSubstr("clip1/audio_embeddings.npz: is an empty file"));
  const Outcome second = run(words, here());
  EXPECT_EQ(second.exit_code, 0) << second.err;
  EXPECT_THAT(second.err, HasSubstr("1 of 20 videos cannot be used and are left out"));
}

TEST_F(DataInput, ADamagedCopyOfATreeIsPackedAgain) {
  fs::copy(here() / "clips", here() / "again", fs::copy_options::recursive);
  const Outcome first = predict("again");
  ASSERT_EQ(first.exit_code, 0) << first.err;
  for (const auto& entry : fs::recursive_directory_iterator(here() / "again.voca_cache"))
    if (entry.path().extension() == ".h5") write_bytes(entry.path(), std::vector<std::byte>(3000));
  const Outcome second = predict("again");
  EXPECT_EQ(second.exit_code, 0) << second.err;
  EXPECT_THAT(second.err, HasSubstr("the features are packed again"));
  EXPECT_EQ(second.out, first.out);
}

// A name that the records of a run cannot hold would lose its checkpoint.
TEST_F(DataInput, ARunsFilesHaveNamesInUtf8) {
  expect_refused({"train", "--features_root=packed.h5", "--save_path=l\xE9.pt"}, 64,
                 HasSubstr("--save_path l\\xe9.pt: is not UTF-8"));
}

TEST_F(DataInput, SplitOptionsOtherThanThePackedFilesAreRefused) {
  struct Asked {
    const char* option;
    const char* has;
  };
  for (const Asked& asked : {Asked{"--group_by=identity", "group_by none"},
                             Asked{"--split_ratios=0.8,0.1,0.1", "split_ratios 0.6,0.2,0.2"},
                             Asked{"--split_seed=7", "split_seed 0"}}) {
    const std::string name = std::string(asked.option).substr(0, std::string(asked.option).find('='));
    const auto message = AllOf(HasSubstr(name), HasSubstr("packed.h5 was packed with"), HasSubstr(asked.has));
    expect_refused(small_training("packed.h5") + Words{"--run_dir=no", asked.option}, 64, message);
    Words plan = small_training("packed.h5") + Words{asked.option};
    plan.front() = "plan";
    expect_refused(plan, 64, message);
    for (const char* const command : {"eval", "predict"})
      expect_refused({command, "--checkpoint=a.pt", "--features_root=packed.h5", asked.option}, 64, message);
  }
  const Words equal{"--group_by=none", "--split_ratios=0.6,.2,.2", "--split_seed=0"};
  EXPECT_EQ(predict("packed.h5", equal).exit_code, 0);
}

TEST_F(DataInput, ConfigAndCheckpointRecordThePackedFilesSplit) {
  const Words pack{
      "pack", "--features_root=tree", "--out=grouped.h5", "--group_by=identity", "--split_seed=9", "--quiet"};
  ASSERT_EQ(run(pack, here()).exit_code, 0);
  const Outcome outcome = run(
      small_training("grouped.h5") + Words{"--run_dir=grouped", "--select_by=loss", "--epochs=1"}, here());
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::ordered_json options = config_of("grouped");
  EXPECT_EQ(options["group_by"], "identity");
  EXPECT_EQ(options["split_seed"], 9);
  EXPECT_EQ(options["split_ratios"], "0.6,0.2,0.2");
  const Outcome inspected = run({"inspect", "grouped/best_model.pt", "--json"}, here());
  EXPECT_EQ(inspected.json()["config"]["group_by"], "identity");
}

TEST_F(DataInput, ARunOnATreeGoesOnWithItsPackedFile) {
  fs::copy(here() / "tree", here() / "source", fs::copy_options::recursive);
  const Words options{"--run_dir=moved", "--epochs=2", "--select_by=loss", "--checkpoint_every=1", "--quiet"};
  ASSERT_EQ(
      run(small_training("source") + options + Words{"--max_steps=2", "--split_seed=4"}, here()).exit_code,
      0);
  const Words pack{"pack", "--features_root=source", "--out=source.h5", "--split_seed=4", "--quiet"};
  ASSERT_EQ(run(pack, here()).exit_code, 0);
  const Outcome goes_on = run(
      {"train", "--config=moved/config.json", "--features_root=source.h5", "--resume=auto", "--max_steps=0"},
      here());
  EXPECT_EQ(goes_on.exit_code, 0) << goes_on.err;
  expect_refused({"train", "--config=moved/config.json", "--features_root=packed.h5", "--resume=auto"}, 64,
                 StartsWith("voca-engine: --split_seed 4: packed.h5 was packed with split_seed 0"));
}

/// A tree of splits as folders, of the small tree's videos: dev_temp/ links into train/.
void make_split_folders(const fs::path& tree, const fs::path& root) {
  int video = 0;
  fs::create_directories(root / "dev_temp");
  for (const char* const label : {"real", "fake"}) {
    for (const auto& entry : fs::directory_iterator(tree / label)) {
      const std::string name = "00" + std::to_string(100 + video);
      const char* const split = video % 5 == 0 ? "test" : "train";
      fs::create_directories(root / split);
      fs::copy(entry.path(), root / split / name, fs::copy_options::recursive);
      if (video % 5 == 1) fs::create_directory_symlink("../train/" + name, root / "dev_temp" / name);
      ++video;
    }
  }
}

TEST_F(DataInput, LinkedValidationVideosLeaveTrainAndItsConfigStartsItAgain) {
  make_split_folders(here() / "tree", here() / "lavdf");
  const Words training = small_training("lavdf") + Words{"--run_dir=lav", "--select_by=loss", "--epochs=1"};
  const Outcome first = run(training, here());
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.err, HasSubstr("train/00101 (kept as dev_temp/00101 in val, the same files)"));
  EXPECT_THAT(first.err, HasSubstr("train 12 real, 12 fake"));
  EXPECT_EQ(config_of("lav")["split_ratios"], "0.6,0.2,0.2");
  const Outcome again = run({"train", "--config=lav/config.json", "--overwrite"}, here());
  EXPECT_EQ(again.exit_code, 0) << again.err;
  expect_refused(training + Words{"--overwrite", "--split_ratios=0.5,0.3,0.2"}, 64,
                 HasSubstr("--split_ratios 0.5,0.3,0.2: lavdf has its splits as folders"));
  expect_refused(training + Words{"--overwrite", "--split_seed=3"}, 64, HasSubstr("--split_seed 3"));
}

TEST_F(DataInput, ATrainingWithoutAUsableSampleStops) {
  damage(data::Split::kTrain, "damaged.h5");
  expect_refused(small_training("damaged.h5") + Words{"--run_dir=damaged", "--quiet"}, 65,
                 HasSubstr("no sample of epoch 1 could be used, 24 are damaged"));
  EXPECT_FALSE(fs::exists(here() / "damaged/best_model.pt"));
}

TEST_F(DataInput, ATestSplitWithoutAUsableSampleLeavesTheTrainingItsResult) {
  damage(data::Split::kTest, "untestable.h5");
  const Words training = small_training("untestable.h5") + Words{"--run_dir=untestable", "--epochs=1"};
  const Outcome outcome = run(training + Words{"--json"}, here());
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(outcome.json()["test"].is_null());
  EXPECT_THAT(outcome.json()["no_test"].get<std::string>(), HasSubstr("all 8 videos are damaged"));
  EXPECT_THAT(run(training + Words{"--resume=auto"}, here()).out, HasSubstr("no test: "));
}

TEST_F(DataInput, AnEmptyValidationSplitIsSaidToBeEmpty) {
  const Outcome packed =
      run({"pack", "--features_root=tree", "--out=no_val.h5", "--split_ratios=0.8,0,0.2", "--quiet"}, here());
  EXPECT_THAT(packed.out, HasSubstr("warning: the val split is empty"));
  for (const char* const by : {"auc", "loss"}) {
    expect_refused(small_training("no_val.h5") + Words{"--run_dir=no", std::string("--select_by=") + by}, 64,
                   HasSubstr("the validation split is empty"));
  }
}

TEST_F(DataInput, EveryReaderNamesAFileOfAnotherKind) {
  const auto write = [&](const std::string& name, std::string_view text) {
    write_bytes(here() / name, std::as_bytes(std::span(text)));
  };
  struct Kind {
    const char* name;
    std::string_view content;
    const char* says;
  };
  for (const Kind& kind :
       {Kind{"page", "<!doctype html><title>Sign in</title>", "is an HTML page"},
        Kind{"pointer", "version https://git-lfs.github.com/spec/v1\nsize 9\n", "git lfs pull"},
        Kind{"json", "{\"error\": \"not found\"}", "is JSON text"}, Kind{"empty", "", "is an empty file"},
        Kind{"pickle", "\x80\x04\x95 pickled", "is a bare pickle"}}) {
    for (const char* const extension : {".pt", ".h5", ".npz", ".safetensors"}) {
      const std::string name = std::string(kind.name) + extension;
      write(name, kind.content);
      expect_refused({"inspect", name}, 65, HasSubstr(kind.says));
      expect_refused({"eval", "--checkpoint=" + name, "--features_root=packed.h5"}, 65, HasSubstr(kind.says));
      expect_refused({"eval", "--checkpoint=a.pt", "--features_root=" + name}, 65, HasSubstr(kind.says));
    }
  }
  const Outcome arrays = run({"inspect", "clips/clip0/visual_embeddings.npz", "--verify", "--json"}, here());
  EXPECT_EQ(arrays.exit_code, 0) << arrays.err;
  EXPECT_EQ(arrays.json()["arrays"]["embeddings"]["dtype"], "float32");
  expect_refused({"eval", "--checkpoint=clips/clip0/visual_embeddings.npz", "--features_root=packed.h5"}, 65,
                 HasSubstr("is a NumPy archive (.npz)"));
  expect_refused({"eval", "--checkpoint=a.pt", "--features_root=a.pt"}, 65,
                 HasSubstr("is a PyTorch file (.pt)"));
  expect_refused({"eval", "--checkpoint=packed.h5", "--features_root=packed.h5"}, 65,
                 HasSubstr("is an HDF5 file"));
}

}  // namespace
}  // namespace voca::tools::testing
