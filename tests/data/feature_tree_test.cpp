#include "data/feature_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/error.h"
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
  EXPECT_THAT(refusal(root / "absent"), AllOf(HasSubstr("no such folder"), HasSubstr("real/ and fake/")));
  testing::write_bytes(root / "file", {});
  EXPECT_THAT(refusal(root / "file"), HasSubstr("is no folder"));
  fs::create_directories(root / "Videos");
  EXPECT_THAT(refusal(root.path()), AllOf(HasSubstr("found Videos/"), HasSubstr("train/, dev/ and test/")));
  fs::create_directories(root / "real");
  EXPECT_THAT(refusal(root.path()), HasSubstr("holds no video"));
  fs::create_directories(root / "train/a");
  EXPECT_THAT(refusal(root.path()), HasSubstr("real/ and train/"));
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
  for (const Split split : kAllSplits) EXPECT_EQ(parse_split(name_of(split)), split);
  EXPECT_EQ(parse_split("dev"), Split::kVal);
  EXPECT_THROW(static_cast<void>(parse_split("all")), engine::UsageError);
}

}  // namespace
}  // namespace voca::data
