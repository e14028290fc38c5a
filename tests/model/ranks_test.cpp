// What the network owes a job of several ranks: it says which gradients are final, and with a contrastive
// loss over all ranks' samples their gradients add up to those of one rank with the whole batch.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <thread>
#include <vector>

#include "engine/base/random.h"
#include "engine/comm/communicator.h"
#include "engine/comm/gradient_buckets.h"
#include "engine/rendezvous/memory_store.h"
#include "support/harness.h"
#include "tests/engine/comm/support/ranks.h"

namespace voca::model {
namespace {

using engine::RandomPurpose;
using engine::RandomStream;
using testing::Network;

ModelConfig small(CrossAttention form, PositionalEncoding positions) {
  return {.visual_dim = 7,
          .audio_dim = 5,
          .hidden = 12,
          .num_layers = 3,
          .num_heads = 3,
          .seq_len = 9,
          .dropout = 0.2,
          .cross_attention = form,
          .positional_encoding = positions};
}

LossConfig contrastive(ContrastiveScope scope) {
  return {.label_smoothing = 0.1, .pos_weight = 1.7, .use_contrastive = true, .contrastive_scope = scope};
}

/// The weights of every network here, and the samples of the global batch from `first` on.
void fill(Network<double>& network, std::int64_t first) {
  network.parameters().initialise(4);
  RandomStream weights(11, RandomPurpose::kSynthetic, 0);
  for (int id = 0; id < network.parameters().count(); ++id)
    for (double& value : network.weight(id)) value += 0.1 * weights.normal();
  const std::size_t samples = network.labels().size();
  for (std::size_t i = 0; i < samples; ++i) {
    RandomStream random(12, RandomPurpose::kSynthetic, static_cast<std::uint64_t>(first) + i);
    const std::size_t visual = network.visual().size() / samples;
    const std::size_t audio = network.audio().size() / samples;
    for (double& value : network.visual().subspan(i * visual, visual)) value = random.normal();
    for (double& value : network.audio().subspan(i * audio, audio)) value = random.normal();
    network.labels()[i] = static_cast<std::int32_t>(random.below(2));
  }
}

/// Remembers what the buffer held when it was called final.
class Recorder final : public engine::GradientListener {
 public:
  explicit Recorder(std::span<const double> gradients) : gradients_(gradients) {}
  void final_until(std::int64_t elements) override {
    ASSERT_GE(elements, static_cast<std::int64_t>(seen_.size()));
    steps_.push_back(elements);
    const auto from = gradients_.begin() + static_cast<std::ptrdiff_t>(seen_.size());
    seen_.insert(seen_.end(), from, gradients_.begin() + elements);
  }
  [[nodiscard]] const std::vector<double>& seen() const { return seen_; }
  [[nodiscard]] const std::vector<std::int64_t>& steps() const { return steps_; }

 private:
  std::span<const double> gradients_;
  std::vector<double> seen_;
  std::vector<std::int64_t> steps_;
};

TEST(GradientListener, HearsOfGradientsThatBackwardNoLongerTouches) {
  for (const CrossAttention form : {CrossAttention::kA2v, CrossAttention::kBidirectional}) {
    for (const PositionalEncoding positions : {PositionalEncoding::kNone, PositionalEncoding::kLearned}) {
      Network<double> network(small(form, positions), contrastive(ContrastiveScope::kLocal), 4);
      fill(network, 0);
      Recorder recorder(network.gradients());
      network.step({.seed = 5, .step = 1}, 1, {.gradients = &recorder});
      // All of the buffer, and what was called final did not change afterwards.
      ASSERT_EQ(recorder.seen().size(), network.gradients().size());
      EXPECT_TRUE(std::equal(recorder.seen().begin(), recorder.seen().end(), network.gradients().begin()));
      // Early enough to be of use: classifier, six halves of layers, attention, two projections.
      EXPECT_GE(recorder.steps().size(), 10U);
      EXPECT_LT(recorder.steps().front(), recorder.steps().back() / 2);
    }
  }
}

TEST(GradientListener, BucketsSumWhatTheNetworkCallsFinal) {
  if (!engine::with_gloo()) GTEST_SKIP() << "built without Gloo";
  constexpr int kRanks = 2;
  const ModelConfig config = small(CrossAttention::kBidirectional, PositionalEncoding::kLearned);
  const LossConfig losses = contrastive(ContrastiveScope::kLocal);
  engine::MemoryStore store;
  std::vector<std::vector<double>> own(kRanks);
  std::vector<std::vector<double>> summed(kRanks);
  std::vector<std::thread> threads;
  threads.reserve(kRanks);
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      const auto r = static_cast<std::size_t>(rank);
      Network<double> network(config, losses, 3);
      fill(network, std::int64_t{3} * rank);
      network.step({.seed = 5, .step = 1});
      own[r].assign(network.gradients().begin(), network.gradients().end());
      const auto ranks = engine::make_gloo_communicator(store, rank, kRanks, {.name = "gradients"});
      engine::GradientBuckets buckets(*ranks, network.parameters().gradients(), {.bucket_bytes = 4096});
      network.step({.seed = 5, .step = 1}, 1, {.gradients = &buckets});
      buckets.finish();
      summed[r].assign(network.gradients().begin(), network.gradients().end());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < own[0].size(); ++i) own[0][i] += own[1][i];
  EXPECT_TRUE(summed[0] == own[0]);
  EXPECT_TRUE(summed[1] == own[0]);
}

struct RankCase {
  std::vector<std::int64_t> rows;
};

class GlobalContrast : public ::testing::TestWithParam<RankCase> {};

TEST_P(GlobalContrast, GradientsOfAllRanksAddUpToThoseOfOneRank) {
  if (!engine::with_gloo()) GTEST_SKIP() << "built without Gloo";
  const std::vector<std::int64_t>& rows = GetParam().rows;
  const int world_size = static_cast<int>(rows.size());
  const std::int64_t all = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  const ModelConfig config = small(CrossAttention::kBidirectional, PositionalEncoding::kLearned);
  const LossConfig losses = contrastive(ContrastiveScope::kGlobal);
  constexpr double kScale = 0.25;

  Network<double> whole(config, losses, all);
  fill(whole, 0);
  const std::vector<double> whole_losses = whole.step({.seed = 5, .step = 1}, kScale);

  engine::MemoryStore store;
  std::vector<std::vector<double>> gradients(rows.size());
  std::vector<std::vector<double>> rank_losses(rows.size());
  std::vector<std::thread> threads;
  threads.reserve(rows.size());
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      const auto r = static_cast<std::size_t>(rank);
      const auto ranks = engine::make_gloo_communicator(store, rank, world_size, {});
      const std::int64_t first = std::accumulate(rows.begin(), rows.begin() + rank, std::int64_t{0});
      Network<double> network(config, losses, rows[r], 1, Activations::kKeep, rows);
      fill(network, first);
      const double share = static_cast<double>(rows[r]) / static_cast<double>(all);
      rank_losses[r] = network.step({.seed = 5, .step = 1, .first_sample = first}, kScale * share,
                                    {.communicator = ranks.get(), .rows_by_rank = rows});
      gradients[r].assign(network.gradients().begin(), network.gradients().end());
    });
  }
  for (std::thread& thread : threads) thread.join();

  std::vector<double> sum(whole.gradients().size());
  std::vector<double> mean(3);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    ASSERT_EQ(gradients[r].size(), sum.size());
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += gradients[r][i];
    for (std::size_t i = 0; i < mean.size(); ++i)
      mean[i] += rank_losses[r][i] * static_cast<double>(rows[r]) / static_cast<double>(all);
  }
  double largest = 0;
  double difference = 0;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    largest = std::max(largest, std::abs(whole.gradients()[i]));
    difference = std::max(difference, std::abs(sum[i] - whole.gradients()[i]));
  }
  ASSERT_GT(largest, 0);
  EXPECT_LE(difference, 1e-10 * largest);
  for (std::size_t i = 0; i < mean.size(); ++i)
    EXPECT_NEAR(mean[i], whole_losses[i], 1e-10 * std::abs(whole_losses[i])) << "loss " << i;
}

INSTANTIATE_TEST_SUITE_P(Ranks, GlobalContrast,
                         ::testing::Values(RankCase{{3, 3}}, RankCase{{5, 2}}, RankCase{{1, 4}},
                                           RankCase{{2, 3, 1}}, RankCase{{4, 1, 4}}),
                         [](const auto& tested) {
                           return fmt::format("{}", fmt::join(tested.param.rows, "_"));
                         });

TEST(ContrastiveScope, GlobalOnOneRankIsTheLocalOne) {
  const ModelConfig config = small(CrossAttention::kA2v, PositionalEncoding::kNone);
  Network<double> local(config, contrastive(ContrastiveScope::kLocal), 4);
  Network<double> global(config, contrastive(ContrastiveScope::kGlobal), 4);
  fill(local, 0);
  fill(global, 0);
  const std::vector<std::int64_t> rows{4};
  EXPECT_EQ(local.step({.seed = 5, .step = 1}),
            global.step({.seed = 5, .step = 1}, 1, {.rows_by_rank = rows}));
  EXPECT_TRUE(std::equal(local.gradients().begin(), local.gradients().end(), global.gradients().begin()));
}

TEST(ContrastiveScope, GlobalIsLaidOutForTheColumnsOfAllRanks) {
  const auto model = make_crossmodal_transformer(small(CrossAttention::kA2v, PositionalEncoding::kNone),
                                                 contrastive(ContrastiveScope::kGlobal));
  const auto plan = [&](int ranks) {
    return plan_training(*model, engine::DType::kF32, 64, {.world_size = ranks}).lines;
  };
  const auto lines_of = [](const std::vector<engine::MemoryLine>& lines, const std::string& name) {
    return std::count_if(lines.begin(), lines.end(), [&](const auto& line) { return line.name == name; });
  };
  // The contrastive head is at the peak of this network of very short sequences.
  EXPECT_EQ(lines_of(plan(1), "contrast z of all ranks"), 0);
  EXPECT_EQ(lines_of(plan(8), "contrast z of all ranks"), 1);
}

}  // namespace
}  // namespace voca::model
