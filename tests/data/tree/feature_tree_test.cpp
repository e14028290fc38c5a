#include "data/tree/feature_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "tests/data/support/scratch.h"

namespace voca::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::Scratch;

std::vector<std::string> ids_of(const FeatureTree& tree) {
  std::vector<std::string> ids;
  for (const VideoFolder& video : tree.videos) ids.push_back(video.id);
  return ids;
}

std::string refusal(const fs::path& root) {
  EXPECT_THROW(static_cast<void>(scan_feature_tree(root)), engine::DataError);
  return message_of([&] { static_cast<void>(scan_feature_tree(root)); });
}

TEST(FeatureTree, ClassFoldersGiveLabelsAndSortedIds) {
  const Scratch root;
  for (const char* const name : {"real/b", "real/a", "real/B", "fake/z", "fake/é", "other/x", "real/.cache"})
    fs::create_directories(root / name);
  testing::write_bytes(root / "real/list.txt", {});
  const FeatureTree tree = scan_feature_tree(root.path());
  EXPECT_EQ(tree.form, TreeForm::kClassFolders);
  EXPECT_THAT(ids_of(tree), ElementsAre("fake/z", "fake/é", "real/B", "real/a", "real/b"));
  EXPECT_EQ(tree.videos[0].label, kFake);
  EXPECT_EQ(tree.videos[4].label, kReal);
  EXPECT_EQ(stream_file(tree.videos[4], Stream::kAudio), root / "real/b/audio_embeddings.npz");
}

TEST(FeatureTree, SplitFoldersGiveSplits) {
  const Scratch root;
  for (const char* const name : {"train/b", "dev/a", "test/c"}) fs::create_directories(root / name);
  const FeatureTree tree = scan_feature_tree(root.path());
  EXPECT_EQ(tree.form, TreeForm::kSplitFolders);
  EXPECT_THAT(ids_of(tree), ElementsAre("dev/a", "test/c", "train/b"));
  EXPECT_EQ(tree.videos[0].split, Split::kVal);
  EXPECT_EQ(tree.videos[1].split, Split::kTest);
  EXPECT_EQ(tree.videos[2].split, Split::kTrain);
  EXPECT_EQ(tree.videos[0].label, kUnknownLabel);
}

TEST(FeatureTree, LoopsOfLinksAreSurvivedAndBrokenOnesNamed) {
  const Scratch root;
  fs::create_directories(root / "real/good");
  fs::create_directory_symlink("..", root / "real/good/up");
  fs::create_directory_symlink("../real", root / "real/round");
  fs::create_symlink("self", root / "real/self");
  fs::create_symlink("nowhere", root / "real/dangling");
  const FeatureTree tree = scan_feature_tree(root.path());
  EXPECT_THAT(ids_of(tree), ElementsAre("real/dangling", "real/good", "real/round", "real/self"));
  EXPECT_THAT(tree.videos[0].fault, HasSubstr("real/dangling"));
  EXPECT_EQ(tree.videos[1].fault, "");
  EXPECT_THAT(tree.videos[3].fault, HasSubstr("symbolic links"));
}

TEST(FeatureTree, WhatIsNoTreeIsRefusedSayingWhatIsExpected) {
  const Scratch root;
  EXPECT_THROW(static_cast<void>(scan_feature_tree(root / "absent")), engine::IoError);
  EXPECT_THAT(testing::message_of([&] { static_cast<void>(scan_feature_tree(root / "absent")); }),
              AllOf(HasSubstr("no such folder"), HasSubstr("real/ and fake/")));
  testing::write_bytes(root / "file", {});
  EXPECT_THAT(refusal(root / "file"), HasSubstr("not a folder"));
  fs::create_directories(root / "Videos");
  EXPECT_THAT(refusal(root.path()), AllOf(HasSubstr("found Videos/"), HasSubstr("train/, dev/ and test/")));
  fs::create_directories(root / "real");
  EXPECT_THAT(refusal(root.path()), HasSubstr("holds no video"));
  fs::create_directories(root / "train/a");
  EXPECT_THAT(refusal(root.path()), HasSubstr("real/ and train/"));
}

TEST(FeatureTree, LetterCaseAndOtherNamesOfValDoNotMatter) {
  const Scratch root;
  for (const char* const name : {"Real/a", "FAKE/b"}) fs::create_directories(root / name);
  EXPECT_THAT(ids_of(scan_feature_tree(root.path())), ElementsAre("fake/b", "real/a"));
  for (const char* const name : {"dev", "val", "valid", "validation", "dev_temp", "Val"}) {
    const Scratch other;
    fs::create_directories(other / "train/a");
    fs::create_directories(fs::path(other / name) / "b");
    const FeatureTree tree = scan_feature_tree(other.path());
    ASSERT_EQ(tree.videos.size(), 2U) << name;
    EXPECT_EQ(tree.videos.front().split == Split::kVal || tree.videos.back().split == Split::kVal, true)
        << name;
  }
  fs::create_directories(root / "real/c");
  EXPECT_THAT(refusal(root.path()), AllOf(HasSubstr("Real/ and real/"), HasSubstr("mean the same")));
}

TEST(FeatureTree, WhatProgramsLeaveBehindIsPassedOverAndOtherFoldersAreNamed) {
  const Scratch root;
  for (const char* const name : {"real/a", "real/__MACOSX", "real/a.voca_cache", "fake/@eaDir",
                                 "__MACOSX/real", ".git/x", "validated/c", "fake/b"})
    fs::create_directories(root / name);
  testing::write_bytes(root / "real/.DS_Store", {});
  testing::write_bytes(root / "test", {});
  const FeatureTree tree = scan_feature_tree(root.path());
  EXPECT_THAT(ids_of(tree), ElementsAre("fake/b", "real/a"));
  EXPECT_THAT(tree.ignored, ElementsAre("test (not a folder)", "validated/"));
}

TEST(FeatureTree, LinkedValidationVideosLeaveTrain) {
  const Scratch root;
  for (const char* const name : {"train/000001", "train/000002", "train/000003", "test/000004"})
    testing::write_video(root / name, 3, 3, 0.0);
  fs::create_directories(root / "dev_temp/000002");
  fs::create_directory_symlink("../train/000001", root / "dev_temp/000001");
  for (const char* const file : {"visual_embeddings.npz", "audio_embeddings.npz"})
    fs::create_symlink(root.path() / "train/000002" / file, root.path() / "dev_temp/000002" / file);
  testing::write_video(root / "train/000004", 3, 3, 0.0);  // a copy of the test video
  testing::write_video(root / "train/000005", 4, 4, 1.0);  // other frames under the name of a test video
  testing::write_video(root / "test/000005", 5, 5, 2.0);
  fs::create_directory_symlink("../train/nowhere", root / "dev_temp/000003");  // leaves the good one in train
  const FeatureTree tree = scan_feature_tree(root.path());
  EXPECT_THAT(ids_of(tree), ElementsAre("dev_temp/000001", "dev_temp/000002", "dev_temp/000003",
                                        "test/000004", "test/000005", "train/000003", "train/000005"));
  EXPECT_EQ(tree.videos[0].split, Split::kVal);
  ASSERT_EQ(tree.repeated.size(), 3U);
  EXPECT_EQ(tree.repeated[0].id, "train/000001");
  EXPECT_EQ(tree.repeated[0].kept, "dev_temp/000001");
  EXPECT_FALSE(tree.repeated[0].is_copy);
  EXPECT_FALSE(tree.repeated[1].is_copy);
  EXPECT_EQ(tree.repeated[2].kept, "test/000004");
  EXPECT_EQ(tree.repeated[2].kept_split, Split::kTest);
  EXPECT_TRUE(tree.repeated[2].is_copy);
}

TEST(FeatureTree, SplitsAndClassesBothAsFoldersAreRefusedByName) {
  const Scratch root;
  testing::write_video(root / "train/real/a", 3, 3, 0.0);
  testing::write_video(root / "train/fake/b", 3, 3, 0.0);
  testing::write_video(root / "test/real/c", 3, 3, 0.0);
  try {
    static_cast<void>(scan_feature_tree(root.path()));
    ADD_FAILURE();
  } catch (const engine::DataError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("splits and classes both as folders are not read"));
  }
}

TEST(FeatureTree, AVideoThatIsLinkedIntoBothClassesHasNoClearLabel) {
  const Scratch root;
  testing::write_video(root / "real/a", 3, 3, 0.0);
  testing::write_video(root / "real/b", 3, 3, 0.0);
  testing::write_video(root / "fake/b", 3, 3, 0.0);  // the name of its original: another video
  fs::create_directory_symlink("../real/a", root / "fake/a");
  fs::create_directory_symlink("b", root / "real/again");
  const FeatureTree tree = scan_feature_tree(root.path());
  EXPECT_THAT(ids_of(tree), ElementsAre("fake/a", "fake/b", "real/a", "real/b"));
  EXPECT_EQ(tree.videos[0].other_label, "real/a");
  EXPECT_EQ(tree.videos[2].other_label, "fake/a");
  ASSERT_EQ(tree.repeated.size(), 1U);
  EXPECT_EQ(tree.repeated[0].id, "real/again");
}

TEST(FeatureTree, AFolderOfVideosAndTheFolderOfOneAreUnlabelled) {
  const Scratch root;
  for (const char* const name : {"clips/b", "clips/a", "clips/test"})
    testing::write_video(root / name, 3, 3, 0.0);
  fs::create_directories(root / "clips/broken");
  const FeatureTree tree = scan_feature_tree(root / "clips");
  EXPECT_EQ(tree.form, TreeForm::kUnlabelled);
  EXPECT_THAT(ids_of(tree), ElementsAre("a", "b", "broken", "test"));
  EXPECT_EQ(tree.videos[0].label, kUnknownLabel);
  EXPECT_FALSE(tree.is_one_video());
  for (const char* const name : {"clips/a", "clips/a/"}) {
    const FeatureTree one = scan_feature_tree(root / name);
    EXPECT_EQ(one.form, TreeForm::kUnlabelled);
    EXPECT_THAT(ids_of(one), ElementsAre("a"));
    EXPECT_TRUE(one.is_one_video());
  }
}

TEST(FeatureTree, ATreeOneLevelDeeperAndPathsOfWindowsAreToldWithWhatToDo) {
  const Scratch root;
  fs::create_directories(root / "outer/features/real/a");
  EXPECT_THAT(refusal(root / "outer"), HasSubstr((root / "outer/features").string() + " is one"));
  fs::create_directories(root / "windows");
  testing::write_bytes(root.path() / "windows" / R"(real\a\visual_embeddings.npz)", {});
  EXPECT_THAT(refusal(root / "windows"), HasSubstr("written on Windows"));
  fs::create_directories(root / "files/other");
  testing::write_bytes(root / "files/real", {});
  EXPECT_THAT(refusal(root / "files"), HasSubstr("real (not a folder)"));
  fs::create_directories(root / "emptied");
  EXPECT_THAT(refusal(root / "emptied"), HasSubstr("found nothing"));
}

TEST(FeatureTree, TheFingerprintChangesWithTheFiles) {
  const Scratch root;
  testing::write_video(root / "real/a", 3, 3, 0.0);
  const std::string before = fingerprint(scan_feature_tree(root.path()));
  EXPECT_EQ(fingerprint(scan_feature_tree(root.path())), before);
  testing::write_video(root / "real/a", 4, 4, 0.0);
  const std::string grown = fingerprint(scan_feature_tree(root.path()));
  EXPECT_NE(grown, before);
  fs::remove(root / "real/a/audio_embeddings.npz");
  EXPECT_NE(fingerprint(scan_feature_tree(root.path())), grown);
}

TEST(Splits, NamesAreReadBothWays) {
  for (const Split split : kAllSplits) EXPECT_EQ(engine::value_named<Split>(name_of(split)), split);
  EXPECT_EQ(engine::value_named<Split>("dev"), Split::kVal);
  EXPECT_EQ(engine::value_named<Split>("all"), std::nullopt);
  EXPECT_EQ(engine::list_of_names<Split>(engine::kNames<Split>, "|"), "train|val|test");  // "dev" is an alias
}

}  // namespace
}  // namespace voca::data
