#include "data/batches/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "engine/base/error.h"

namespace voca::data {
namespace {

std::vector<std::int64_t> every_third(std::int64_t count) {
  std::vector<std::int64_t> samples;
  for (std::int64_t i = 0; i < count; ++i) samples.push_back(3 * i + 1);
  return samples;
}

/// What all ranks visit in an epoch, batch by batch, the ranks' slices in order.
std::vector<std::int64_t> visited(std::int64_t count, SamplerOptions options, std::int64_t epoch) {
  std::vector<std::int64_t> order;
  for (std::int64_t b = 0;; ++b) {
    bool any = false;
    for (options.rank = 0; options.rank < options.world_size; ++options.rank) {
      Sampler sampler(every_third(count), options);
      sampler.start_epoch(epoch);
      if (b >= sampler.batches()) continue;
      any = true;
      EXPECT_EQ(sampler.first_position(b), static_cast<std::int64_t>(order.size()));
      const auto batch = sampler.batch(b);
      EXPECT_LE(static_cast<std::int64_t>(batch.size()), options.batch_size);
      order.insert(order.end(), batch.begin(), batch.end());
    }
    if (!any) return order;
  }
}

TEST(Sampler, TrainingOrderDependsOnSeedAndEpochAndOnNoNumberOfRanks) {
  // 48 = 1 × 48 = 2 × 24 = 4 × 12: the global batch is the same, and so must the order be.
  const std::vector<std::int64_t> one = visited(300, {.seed = 5, .batch_size = 48}, 3);
  EXPECT_EQ(one.size(), 288U);
  EXPECT_EQ(visited(300, {.seed = 5, .batch_size = 24, .world_size = 2}, 3), one);
  EXPECT_EQ(visited(300, {.seed = 5, .batch_size = 12, .world_size = 4}, 3), one);
  EXPECT_NE(visited(300, {.seed = 5, .batch_size = 48}, 4), one);
  EXPECT_NE(visited(300, {.seed = 6, .batch_size = 48}, 3), one);
}

TEST(Sampler, AnEpochVisitsEverySampleOnce) {
  std::vector<std::int64_t> order = visited(96, {.seed = 1, .batch_size = 8, .world_size = 3}, 0);
  EXPECT_NE(order, every_third(96));
  std::sort(order.begin(), order.end());
  EXPECT_EQ(order, every_third(96));
}

TEST(Sampler, TheLastPartialBatchOfTrainingIsDroppedUnlessItIsTheOnlyOne) {
  EXPECT_EQ(Sampler(every_third(25), {.batch_size = 8}).batches(), 3);
  EXPECT_EQ(Sampler(every_third(25), {.batch_size = 8}).samples(), 24);
  const Sampler only(every_third(5), {.batch_size = 8});
  EXPECT_EQ(only.batches(), 1);
  EXPECT_EQ(only.samples(), 5);
  EXPECT_EQ(Sampler({}, {.batch_size = 8}).batches(), 0);
  std::vector<std::int64_t> order = visited(7, {.batch_size = 4, .world_size = 3}, 0);
  std::sort(order.begin(), order.end());
  EXPECT_EQ(order, every_third(7));
}

TEST(Sampler, EvaluationVisitsEverySampleOnceInTheOrderOfTheDataForAnyNumberOfRanks) {
  for (const std::int64_t count : {1, 2, 7, 24, 25, 29, 100}) {
    for (const int world : {1, 2, 3, 4, 7}) {
      EXPECT_EQ(visited(count, {.training = false, .batch_size = 8, .world_size = world}, 9),
                every_third(count))
          << count << " samples on " << world;
    }
  }
}

TEST(Sampler, RanksCountTheirOwnSamples) {
  std::int64_t total = 0;
  for (int rank = 0; rank < 3; ++rank)
    total += Sampler(every_third(29), {.training = false, .batch_size = 4, .rank = rank, .world_size = 3})
                 .samples();
  EXPECT_EQ(total, 29);
}

TEST(Sampler, FewerTrainingSamplesThanRanksAreRefused) {
  EXPECT_THROW(Sampler(every_third(2), {.batch_size = 4, .rank = 0, .world_size = 3}), engine::UsageError);
  EXPECT_THROW(Sampler(every_third(2), {.batch_size = 0}), engine::InternalError);
}

/// Each sample must come at each place about equally often: χ² over 16 places, 4000 epochs.
TEST(Sampler, PermutationsAreUniform) {
  Sampler sampler(every_third(16), {.seed = 11, .batch_size = 16});
  std::vector<std::vector<int>> counts(16, std::vector<int>(16, 0));
  for (std::int64_t epoch = 0; epoch < 4000; ++epoch) {
    sampler.start_epoch(epoch);
    const auto batch = sampler.batch(0);
    for (std::size_t place = 0; place < 16; ++place)
      ++counts[place][static_cast<std::size_t>(batch[place] / 3)];
  }
  double chi_squared = 0.0;
  for (const auto& row : counts) {
    for (const int count : row) chi_squared += (count - 250.0) * (count - 250.0) / 250.0;
  }
  // 225 degrees of freedom: mean 225, deviation 21. Five deviations on either side.
  EXPECT_GT(chi_squared, 120.0);
  EXPECT_LT(chi_squared, 330.0);
}

}  // namespace
}  // namespace voca::data
