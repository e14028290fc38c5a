#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>

#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"

// Where no room is left the program says so and ends in order, the libraries under it included.

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::read_bytes;
using data::testing::Scratch;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

/// Runs the program where no file may grow beyond `most` bytes.
Outcome run_with_room(rlim_t most, const Words& words, const fs::path& folder) {
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = most;
  ::setrlimit(RLIMIT_FSIZE, &small);  // the program inherits it
  const Outcome outcome = run(words, folder);
  ::setrlimit(RLIMIT_FSIZE, &before);
  return outcome;
}

TEST(FullDisk, PackEndsWithThePathAndKeepsTheOldFile) {
  const Scratch scratch;
  make_small_tree(scratch / "tree", 6);
  pack_small_tree(scratch / "tree", scratch / "a.h5");
  const std::vector<std::byte> before = read_bytes(scratch / "a.h5");
  for (const std::size_t most : {std::size_t{600}, std::size_t{5000}, before.size() / 2, before.size() - 1}) {
    const Outcome outcome = run_with_room(
        most, {"pack", "--features_root=tree", "--out=a.h5", "--overwrite", "--quiet"}, scratch.path());
    EXPECT_EQ(outcome.exit_code, 74) << most << "\n" << outcome.err;
    EXPECT_THAT(outcome.message(), HasSubstr(std::string("a.h5: cannot write: ") + std::strerror(EFBIG)));
    EXPECT_EQ(read_bytes(scratch / "a.h5"), before);
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(scratch.path()))
      names.push_back(entry.path().filename().string());
    EXPECT_THAT(names, UnorderedElementsAre("a.h5", "tree"));
  }
}

TEST(FullDisk, ATrainingThatPacksItsTreeFirstEndsLikewise) {
  const Scratch scratch;
  make_small_tree(scratch / "tree", 6);
  const Outcome outcome = run_with_room(
      5000, small_training("tree") + Words{"--epochs=1", "--run_dir=run", "--quiet"}, scratch.path());
  EXPECT_EQ(outcome.exit_code, 74) << outcome.err;
  EXPECT_THAT(outcome.message(), HasSubstr(std::strerror(EFBIG)));
  EXPECT_TRUE(fs::is_empty(scratch / "tree.voca_cache"));
}

}  // namespace
}  // namespace voca::tools::testing
