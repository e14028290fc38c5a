#include "tools/checkpoint_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/base/atomic_file.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"

// A run folder stands for the checkpoint that its run kept.

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::message_of;
using data::testing::Scratch;
using ::testing::HasSubstr;

class RunFolderAsCheckpoint : public ::testing::Test {
 protected:
  void make_run(const std::string& folder, const std::string& options) const {
    fs::create_directories(here_ / folder);
    engine::write_file_atomically(here_ / (folder + "/config.json"),
                                  R"({"command": "train", "options": )" + options + "}");
  }
  void make_file(const std::string& name) const { engine::write_file_atomically(here_ / name, "x"); }
  /// The file that `folder` stands for, seen from the test's folder.
  [[nodiscard]] std::string kept_by(const std::string& folder) const {
    return fs::relative(checkpoint_path(here_ / folder), here_.path()).string();
  }
  Scratch here_;
};

TEST_F(RunFolderAsCheckpoint, IsWhereTheRunPutIt) {
  make_run("a/run", R"({"run_dir": "run"})");
  make_file("a/run/best_model.pt");
  EXPECT_EQ(kept_by("a/run"), "a/run/best_model.pt");
  EXPECT_EQ(kept_by("a/run/"), "a/run/best_model.pt");
  make_run("b/best.run", R"({"save_path": "best.pt"})");
  make_file("b/best.pt");
  EXPECT_EQ(kept_by("b/best.run"), "b/best.pt");
  make_run("c/runs/1", R"({"run_dir": "runs/1/", "save_path": "out/1.pt"})");
  fs::create_directories(here_ / "c/out");
  make_file("c/out/1.pt");
  EXPECT_EQ(kept_by("c/runs/1"), "c/out/1.pt");
  make_run("d/run", R"({"run_dir": "run", "save_path": ")" + (here_ / "far.safetensors").string() + "\"}");
  make_file("far.safetensors");
  EXPECT_EQ(kept_by("d/run"), "far.safetensors");
  make_run("e/run", R"({"run_dir": "run", "save_path": "best.pt", "save_last": "last.pt", "no_val": true})");
  make_file("e/last.pt");
  EXPECT_EQ(kept_by("e/run"), "e/last.pt");
}

TEST_F(RunFolderAsCheckpoint, IsFoundAfterBothWereMoved) {
  make_run("elsewhere/renamed", R"({"run_dir": "exp/run", "save_path": "exp/best.pt"})");
  make_file("elsewhere/best.pt");
  EXPECT_EQ(kept_by("elsewhere/renamed"), "elsewhere/best.pt");
  make_file("elsewhere/renamed/best.pt");
  EXPECT_EQ(kept_by("elsewhere/renamed"), "elsewhere/renamed/best.pt");
}

TEST_F(RunFolderAsCheckpoint, IsNeverAnotherRunsFileOfThatName) {
  make_run("a/best.run", R"({"save_path": "best.pt"})");
  make_file("best.pt");
  const fs::path before = fs::current_path();
  fs::current_path(here_.path());
  EXPECT_THAT(message_of([] { static_cast<void>(checkpoint_path("a/best.run")); }),
              HasSubstr("a/best.run: the checkpoint of its run, "));
  make_file("a/best.pt");
  EXPECT_EQ(checkpoint_path("a/best.run"), "a/best.pt");
  EXPECT_EQ(checkpoint_path("best.pt"), "best.pt");
  EXPECT_EQ(checkpoint_path("nowhere"), "nowhere");
  fs::current_path(before);
}

TEST_F(RunFolderAsCheckpoint, OfNoRunIsRefused) {
  fs::create_directories(here_ / "folder");
  EXPECT_THAT(message_of([&] { static_cast<void>(checkpoint_path(here_ / "folder")); }),
              HasSubstr("folder: is a folder without config.json, so not a run folder; name a checkpoint"));
  for (const auto& [text, why] : {std::pair{"[]", "is not the config.json of a training"},
                                  {"{}", "is not the config.json of a training"},
                                  {"{\"options\": 3}", "is not the config.json of a training"},
                                  {"", "is empty, JSON was expected"},
                                  {"{\"options\"", "is not JSON, at column 10"}}) {
    engine::write_file_atomically(here_ / "folder/config.json", text);
    EXPECT_THAT(message_of([&] { static_cast<void>(checkpoint_path(here_ / "folder")); }),
                HasSubstr(std::string("folder/config.json: ") + why));
  }
}

TEST_F(RunFolderAsCheckpoint, IsTakenByEveryCommandThatTakesACheckpoint) {
  make_small_tree(here_ / "tree", 40);
  pack_small_tree(here_ / "tree", here_ / "packed.h5");
  const Words train = small_training("packed.h5") + Words{"--epochs=1"};
  ASSERT_EQ(run(train + Words{"--save_path=best.pt"}, here_.path()).exit_code, 0);
  const auto same = [&](const Words& words) {
    const Outcome of_folder = run(words + Words{"--checkpoint=best.run"}, here_.path());
    EXPECT_EQ(of_folder.exit_code, 0) << of_folder.err;
    EXPECT_EQ(of_folder.out, run(words + Words{"--checkpoint=best.pt"}, here_.path()).out);
  };
  same({"eval", "--features_root=packed.h5", "--json"});
  same({"predict", "--features_root=packed.h5"});
  EXPECT_EQ(
      run({"predict", "--features_root=packed.h5", "--checkpoint=best.run,best.pt"}, here_.path()).exit_code,
      0);
  EXPECT_EQ(run({"inspect", "best.run", "--export=e.safetensors"}, here_.path()).exit_code, 0);
  EXPECT_TRUE(fs::exists(here_ / "e.safetensors"));
  const Outcome warm = run(train + Words{"--run_dir=warm", "--init_from=best.run"}, here_.path());
  EXPECT_EQ(warm.exit_code, 0) << warm.err;
  const Outcome refused = run({"eval", "--features_root=packed.h5", "--checkpoint=tree"}, here_.path());
  EXPECT_EQ(refused.exit_code, 65);
  EXPECT_THAT(refused.message(), HasSubstr("tree: is a folder without config.json, so not a run folder"));
}

}  // namespace
}  // namespace voca::tools::testing
