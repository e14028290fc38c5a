#include "engine/rendezvous/rank_facts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace voca::engine {
namespace {

const RankFacts kFacts{.host = "gpu07.example", .pid = 4711, .must_agree = {}};

TEST(NamedRank, IsFoundInWhatIsSaidOfIt) {
  for (const std::string& said : {describe(12, kFacts) + " failed: --features_root x: no such file or folder",
                                  describe(12, kFacts) + " was lost; it was last at: a step"}) {
    const auto named = named_rank(said);
    ASSERT_TRUE(named) << said;
    EXPECT_EQ(named->rank, 12);
    EXPECT_EQ(named->pid, 4711);
    EXPECT_FALSE(named->is_silent);
  }
}

TEST(NamedRank, IsSilentWhereThatIsSaid) {
  const std::string said = silence(1, kFacts, 4.04, "evaluating");
  EXPECT_EQ(said,
            "rank 1 (host gpu07.example, pid 4711) has been silent for 4.0 s; it was last at: evaluating");
  ASSERT_TRUE(named_rank(said));
  EXPECT_TRUE(named_rank(said)->is_silent);
}

TEST(NamedRank, IsNotThereInOtherLines) {
  for (const char* line : {"", "rank 1", "rank 1, connecting to the others: x", "out of memory",
                           "the rank 1 (host a, pid 2) failed", "rank x (host a, pid 2) failed",
                           "rank 99999999999 (host a, pid 2) failed"})
    EXPECT_FALSE(named_rank(line)) << line;
}

}  // namespace
}  // namespace voca::engine
