#include "tests/simt/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/simt/defects.h"

namespace voca::simt::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Free {
  void operator()(float* memory) const { host::free(memory); }
};
using Floats = std::unique_ptr<float[], Free>;

Floats floats(std::size_t n) {
  return Floats(static_cast<float*>(host::allocate(n * sizeof(float))));
}

Floats counting(std::size_t n) {
  Floats values = floats(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(i);
  return values;
}

const host::Schedule kSchedules[] = {host::forward_schedule(), host::reverse_schedule(),
                                     host::random_schedule(1)};

/// Restores the schedule after each test.
class Executor : public ::testing::Test {
 protected:
  void TearDown() override { host::set_schedule(before_); }

 private:
  host::Schedule before_ = host::schedule();
};

/// Result of one run of a seeded kernel.
struct Outcome {
  std::string defect;  ///< the report; empty if none
  std::vector<float> out;
};

Outcome run_seeded(Defective defect, bool right, const host::Schedule& schedule) {
  host::set_schedule(schedule);
  const Floats in = counting(kNumbers);
  const Floats out = floats(kNumbers);
  Outcome run;
  try {
    run_defect(defect, right, in.get(), out.get());
  } catch (const host::Defect& found) {
    run.defect = found.what();
  }
  run.out.assign(out.get(), out.get() + kNumbers);
  return run;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Seeded {
  Defective defect;
  const char* name;
  bool reported;       ///< whether every build reports it under every schedule, with `report`
  const char* report;  ///< part of the report; if not `reported`, only in the race build
};

const Seeded kSeeded[] = {
    {Defective::kMissingBarrierBeforeRead, "MissingBarrierBeforeRead", false, "after write"},
    {Defective::kMissingBarrierBeforeOverwrite, "MissingBarrierBeforeOverwrite", false, "in shared memory"},
    {Defective::kMissingSyncwarp, "MissingSyncwarp", false, "in shared memory"},
    {Defective::kShuffleTakenForAFence, "ShuffleTakenForAFence", false, "read after write"},
    {Defective::kAsyncCopyReadBeforeItsWait, "AsyncCopyReadBeforeItsWait", false,
     "cp.async destination used"},
    {Defective::kAsyncCopyReadWithoutBarrier, "AsyncCopyReadWithoutBarrier", false, "in shared memory"},
    {Defective::kAsyncCopyRefillWithoutBarrier, "AsyncCopyRefillWithoutBarrier", false, "in shared memory"},
    {Defective::kBlocksShareACell, "BlocksShareACell", false, "of another block"},
    {Defective::kThreadsShareASum, "ThreadsShareASum", false, "in global memory"},
    {Defective::kDivergentBarrier, "DivergentBarrier", true, "divergent barrier"},
    {Defective::kExitBeforeBarrier, "ExitBeforeBarrier", true, "divergent barrier"},
    {Defective::kHalfWarpWithAFullMask, "HalfWarpWithAFullMask", true, "warp divergence"},
    {Defective::kMaskWithoutTheCaller, "MaskWithoutTheCaller", true, "does not name the calling lane"},
    {Defective::kAsyncCopyNeverWaitedFor, "AsyncCopyNeverWaitedFor", true, "never waited for"},
    {Defective::kMisalignedLdmatrix, "MisalignedLdmatrix", true, "not a multiple of 16"}};

class SeededDefect : public Executor, public ::testing::WithParamInterface<Seeded> {};
INSTANTIATE_TEST_SUITE_P(All, SeededDefect, ::testing::ValuesIn(kSeeded),
                         [](const auto& seeded) { return std::string(seeded.param.name); });

TEST_P(SeededDefect, IsFound) {
  const Seeded& seeded = GetParam();
  const std::vector<float> right = run_seeded(seeded.defect, true, kSchedules[0]).out;
  int found = 0;
  for (const host::Schedule& schedule : kSchedules) {
    const Outcome run = run_seeded(seeded.defect, false, schedule);
    if (seeded.reported || host::detects_races()) {
      EXPECT_THAT(run.defect, HasSubstr(seeded.report)) << static_cast<int>(schedule.order);
    }
    if (!run.defect.empty() || !same_bits(run.out, right)) ++found;
  }
  // The value of a cell shows only its last writer; only the race build detects that there were two. The same
  // holds for a shuffle that happens to run all lanes up to it.
  const bool results_show_it =
      seeded.defect != Defective::kShuffleTakenForAFence && seeded.defect != Defective::kThreadsShareASum;
  EXPECT_TRUE(found > 0 || (!results_show_it && !host::detects_races()));
}

TEST_P(SeededDefect, IsNotFoundWhereItIsNot) {
  const std::vector<float> right = run_seeded(GetParam().defect, true, kSchedules[0]).out;
  for (const host::Schedule& schedule : kSchedules) {
    const Outcome run = run_seeded(GetParam().defect, true, schedule);
    EXPECT_EQ(run.defect, "");
    EXPECT_TRUE(same_bits(run.out, right)) << static_cast<int>(schedule.order);
  }
}

TEST_F(Executor, ReportsNameKernelBlockThreadFileAndLine) {
  const Outcome run = run_seeded(Defective::kDivergentBarrier, false, host::forward_schedule());
  EXPECT_THAT(run.defect, AllOf(HasSubstr("kernel barrier_in_a_branch, block (0,0,0), thread (64,0,0)"),
                                HasSubstr("threads 0-63: wait in __syncthreads at defects.cu:")));
}

TEST_F(Executor, RaceReportsNameFileAndLine) {
  if (!host::detects_races()) GTEST_SKIP() << "not the race build";
  const Outcome run = run_seeded(Defective::kMissingBarrierBeforeRead, false, host::forward_schedule());
  EXPECT_THAT(run.defect, AllOf(HasSubstr("kernel reverse_block"), HasSubstr("race at defects.cu:"),
                                HasSubstr("thread ")));
}

TEST_F(Executor, WarpIntrinsicsAreThoseOfTheirDefinition) {
  for (const host::Schedule& schedule : kSchedules) {
    host::set_schedule(schedule);
    const Floats in = counting(32);
    const Floats out = floats(256);
    run_warp_intrinsics(in.get(), out.get());
    for (int lane = 0; lane < 32; ++lane) {
      const float* mine = out.get() + 8 * lane;
      EXPECT_EQ(mine[0], 5);
      EXPECT_EQ(mine[1], static_cast<float>(lane ^ 3));
      EXPECT_EQ(mine[2], static_cast<float>(lane + 7 < 32 ? lane + 7 : lane));
      EXPECT_EQ(mine[3], static_cast<float>(lane % 8 < 2 ? lane : lane - 2));
      EXPECT_EQ(mine[4], 65535);
      EXPECT_EQ(mine[5], 1);
      EXPECT_EQ(mine[6], 0);
      EXPECT_EQ(mine[7], static_cast<float>(lane / 4 * 4 + 1));
    }
  }
}

TEST_F(Executor, AShuffleFromALaneOutsideTheMaskGivesNan) {
  const Floats out = floats(32);
  run_shuffle_from_outside(out.get());
  for (int lane = 0; lane < 12; ++lane)
    EXPECT_EQ(out[static_cast<std::size_t>(lane)], static_cast<float>(lane + 4));
  for (int lane = 12; lane < 16; ++lane) EXPECT_TRUE(std::isnan(out[static_cast<std::size_t>(lane)])) << lane;
}

TEST_F(Executor, SharedMemoryIsNanAtTheStartOfEveryBlock) {
  const Floats out = floats(kNumbers);
  run_fresh_shared_memory(out.get());
  for (std::size_t i = 0; i < kNumbers; ++i) EXPECT_TRUE(std::isnan(out[i])) << i;
}

TEST_F(Executor, RunsOnAfterADefect) {
  const std::vector<float> before = run_seeded(Defective::kHalfWarpWithAFullMask, true, kSchedules[0]).out;
  EXPECT_NE(run_seeded(Defective::kHalfWarpWithAFullMask, false, kSchedules[0]).defect, "");
  EXPECT_TRUE(same_bits(run_seeded(Defective::kHalfWarpWithAFullMask, true, kSchedules[0]).out, before));
}

#if defined(__SANITIZE_ADDRESS__) || defined(VOCA_SIMT_ASAN)
TEST_F(Executor, AddressSanitizerSeesTheEndOfASharedArray) {
  const Floats out = floats(1);
  run_shared_overflow(kDefectThreads - 1, out.get());
  EXPECT_DEATH(run_shared_overflow(kDefectThreads, out.get()), "use-after-poison");
}
#endif

}  // namespace
}  // namespace voca::simt::testing
