#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "model/crossmodal_transformer.h"
#include "model/registry.h"
#include "support/harness.h"

namespace voca::model {
namespace {

std::int64_t parameter_count(const ModelConfig& config) {
  const auto model = make_crossmodal_transformer(config, {});
  return engine::ParameterStore(model->parameters(), engine::DType::kF32, true, nullptr).parameters();
}

const ModelConfig kLarge{.hidden = 1024, .num_layers = 6, .num_heads = 16, .seq_len = 320, .dropout = 0.15};

// The counts of the training guide's two recipes.
TEST(Architecture, HasTheParametersOfTheRecipes) {
  EXPECT_EQ(parameter_count({}), 32'589'569);
  EXPECT_EQ(parameter_count({.cross_attention = CrossAttention::kBidirectional}), 34'953'473);
  EXPECT_EQ(parameter_count(kLarge), 82'669'825);
  ModelConfig large = kLarge;
  large.cross_attention = CrossAttention::kBidirectional;
  EXPECT_EQ(parameter_count(large), 86'870'273);
}

TEST(Architecture, CountsTheFlopsOfTheRecipes) {
  const StepFlops base = count_flops({}, {}, 64);
  EXPECT_NEAR(base.gemm_forward, 1.03e12, 0.006e12);
  EXPECT_NEAR(base.gemm_backward, 2.04e12, 0.006e12);
  EXPECT_NEAR(base.attention_forward, 0.064e12, 0.0006e12);
  EXPECT_NEAR(base.attention_backward, 0.161e12, 0.0006e12);
  EXPECT_EQ(base.gemm_recompute + base.attention_recompute, 0);
  // All but the last layer's 12 H² a frame, the classifier and the contrastive head.
  const StepFlops again = count_flops({}, {}, 64, Activations::kRecompute);
  constexpr double kFrames = 64.0 * 256.0;
  EXPECT_NEAR(again.gemm_forward - again.gemm_recompute, kFrames * 24 * 768 * 768 + 64.0 * 768 * 769, 1);
  EXPECT_NEAR(again.attention_recompute, 4.0 / 5.0 * again.attention_forward, 1);
  EXPECT_EQ(again.gemm_forward, base.gemm_forward);
  const StepFlops large = count_flops(kLarge, {}, 80);
  EXPECT_NEAR(large.gemm_forward, 4.13e12, 0.006e12);
  EXPECT_NEAR(large.gemm_backward, 8.21e12, 0.006e12);
}

TEST(Architecture, IsReadBackFromNamesAndShapes) {
  const ModelConfig config{.visual_dim = 10,
                           .audio_dim = 20,
                           .hidden = 24,
                           .num_layers = 3,
                           .num_heads = 2,
                           .seq_len = 17,
                           .num_classes = 4,
                           .cross_attention = CrossAttention::kBidirectional,
                           .positional_encoding = PositionalEncoding::kLearned};
  const auto model = make_crossmodal_transformer(config, {});
  std::vector<StateEntry> state;
  for (const auto& spec : model->parameters()) state.push_back({spec.name, spec.shape});
  const ModelConfig inferred = infer_config(state, {.num_heads = 2, .dropout = 0.3});
  EXPECT_EQ(inferred.visual_dim, 10);
  EXPECT_EQ(inferred.audio_dim, 20);
  EXPECT_EQ(inferred.hidden, 24);
  EXPECT_EQ(inferred.num_layers, 3);
  EXPECT_EQ(inferred.seq_len, 17);
  EXPECT_EQ(inferred.num_classes, 4);
  EXPECT_EQ(inferred.cross_attention, CrossAttention::kBidirectional);
  EXPECT_EQ(inferred.positional_encoding, PositionalEncoding::kLearned);
  EXPECT_EQ(inferred.num_heads, 2);
  EXPECT_EQ(inferred.dropout, 0.3);
  EXPECT_THROW((void)infer_config({}, {}), engine::DataError);
  EXPECT_THROW((void)infer_config(state, {.num_heads = 7}), engine::DataError);
}

TEST(Architecture, RefusesOptionsThatDoNotHold) {
  EXPECT_THROW((void)make_crossmodal_transformer({.hidden = 100, .num_heads = 8}, {}), engine::UsageError);
  EXPECT_THROW((void)make_crossmodal_transformer({.hidden = 9, .num_heads = 3}, {}), engine::UsageError);
  EXPECT_THROW((void)make_crossmodal_transformer({.num_layers = 65}, {}), engine::UsageError);
  EXPECT_THROW((void)make_crossmodal_transformer({.dropout = 1}, {}), engine::UsageError);
  EXPECT_THROW((void)make_crossmodal_transformer({}, {.label_smoothing = 1}), engine::UsageError);
  EXPECT_THROW((void)make_crossmodal_transformer({}, {.pos_weight = 0}), engine::UsageError);
  EXPECT_THROW((void)make_crossmodal_transformer({}, {.pos_weight = std::nan("")}), engine::UsageError);
}

TEST(Architecture, WarnsWhenACertainFakeComesOutReal) {
  EXPECT_FALSE(certain_fake_exceeds_half({.label_smoothing = 0.1, .pos_weight = 1}));
  EXPECT_FALSE(certain_fake_exceeds_half({.label_smoothing = 0.1, .pos_weight = 18.9}));
  EXPECT_TRUE(certain_fake_exceeds_half({.label_smoothing = 0.1, .pos_weight = 19.1}));
}

TEST(Memory, OfAStepIsExactlyWhatTheDryRunFound) {
  for (const Activations activations : {Activations::kKeep, Activations::kRecompute}) {
    for (const bool contrastive : {false, true}) {
      testing::Network<float> network(
          {.visual_dim = 16, .audio_dim = 16, .hidden = 32, .num_layers = 2, .num_heads = 2, .seq_len = 12},
          {.use_contrastive = contrastive}, 3, 1, activations);
      network.parameters().initialise(1);
      network.step({.seed = 1, .step = 1});
      EXPECT_EQ(network.arena().used(), 0U);
      network.predict();
      EXPECT_EQ(network.arena().high_water(), network.planned_bytes());
    }
  }
}

// What is left with recomputation: a sequence a layer, one layer's activations and its backward's.
TEST(Memory, OfTheRecipesIsAThirdAndAQuarterWithActivationsRecomputed) {
  const auto ratio = [](const ModelConfig& config, std::int64_t batch) {
    const auto bytes = [&](Activations activations) {
      const auto model = make_crossmodal_transformer(config, {.use_contrastive = true}, activations);
      return static_cast<double>(engine::plan_training(*model, engine::DType::kF32, batch).bytes);
    };
    return bytes(Activations::kRecompute) / bytes(Activations::kKeep);
  };
  ModelConfig base;
  ModelConfig large = kLarge;
  EXPECT_LT(ratio(base, 64), 0.34);
  EXPECT_LT(ratio(large, 80), 0.26);
  base.cross_attention = large.cross_attention = CrossAttention::kBidirectional;
  EXPECT_LT(ratio(base, 64), 0.32);
  EXPECT_LT(ratio(large, 80), 0.25);
}

TEST(Parameters, LieInTheOrderInWhichBackwardFinishes) {
  const auto model = make_crossmodal_transformer({.hidden = 32, .num_layers = 2, .num_heads = 2}, {});
  std::vector<std::string> by_rank(model->parameters().size());
  for (const auto& spec : model->parameters()) {
    ASSERT_LT(static_cast<std::size_t>(spec.backward_rank), by_rank.size());
    EXPECT_TRUE(by_rank[static_cast<std::size_t>(spec.backward_rank)].empty()) << spec.name;
    by_rank[static_cast<std::size_t>(spec.backward_rank)] = spec.name;
  }
  const auto rank = [&](const std::string& name) {
    return std::find(by_rank.begin(), by_rank.end(), name) - by_rank.begin();
  };
  EXPECT_LT(rank("classifier.3.weight"), rank("temporal_encoder.layers.1.linear2.weight"));
  EXPECT_LT(rank("temporal_encoder.layers.1.self_attn.in_proj_weight"),
            rank("temporal_encoder.layers.0.norm2.weight"));
  EXPECT_LT(rank("cross_attn.in_proj_weight"), rank("a_proj.0.weight"));
  EXPECT_EQ(by_rank.back(), "v_proj.0.bias");
}

}  // namespace
}  // namespace voca::model
