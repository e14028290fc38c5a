// The whole network against central differences, in double, with every dropout on.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/base/random.h"
#include "support/harness.h"
#include "support/tolerances.h"

namespace voca::model {
namespace {

using engine::RandomPurpose;
using engine::RandomStream;
using engine::StepRandom;
using testing::Network;

struct GradientCase {
  std::string name;
  ModelConfig config;
  LossConfig losses;
};

ModelConfig small(CrossAttention form, PositionalEncoding positions, std::int64_t classes) {
  return {.visual_dim = 7,
          .audio_dim = 5,
          .hidden = 12,
          .num_layers = 2,
          .num_heads = 3,
          .seq_len = 9,
          .num_classes = classes,
          .dropout = 0.2,
          .cross_attention = form,
          .positional_encoding = positions};
}

const LossConfig kContrastive{.label_smoothing = 0.1, .pos_weight = 1.7, .use_contrastive = true};
const LossConfig kPlain{};

std::vector<GradientCase> gradient_cases() {
  const auto a2v = CrossAttention::kA2v;
  const auto both = CrossAttention::kBidirectional;
  return {{"a2v", small(a2v, PositionalEncoding::kNone, 1), kPlain},
          {"a2v_contrastive", small(a2v, PositionalEncoding::kNone, 1), kContrastive},
          {"a2v_learned_classes", small(a2v, PositionalEncoding::kLearned, 4), kContrastive},
          {"a2v_sinusoidal", small(a2v, PositionalEncoding::kSinusoidal, 1), kContrastive},
          {"bidirectional", small(both, PositionalEncoding::kNone, 1), kContrastive},
          {"bidirectional_learned", small(both, PositionalEncoding::kLearned, 1), kContrastive},
          {"bidirectional_classes", small(both, PositionalEncoding::kSinusoidal, 3), kPlain}};
}

template <typename T>
void randomise(Network<T>& network, std::int64_t classes) {
  RandomStream random(11, RandomPurpose::kSynthetic, 0);
  network.parameters().initialise(4);
  // Off the starting point, where gammas are 1 and biases 0 and their terms would not show.
  for (int id = 0; id < network.parameters().count(); ++id)
    for (T& value : network.weight(id)) value += static_cast<T>(0.1 * random.normal());
  for (T& value : network.visual()) value = static_cast<T>(random.normal());
  for (T& value : network.audio()) value = static_cast<T>(random.normal());
  for (std::int32_t& label : network.labels())
    label = static_cast<std::int32_t>(random.below(std::max<std::int64_t>(classes, 2)));
}

class WholeModel : public ::testing::TestWithParam<GradientCase> {};

TEST_P(WholeModel, GradientsAreTheDerivativesOfTheLoss) {
  const auto& [name, config, losses] = GetParam();
  Network<double> network(config, losses, 5);
  randomise(network, config.num_classes);
  const StepRandom random{.seed = 77, .step = 3, .first_sample = 2};
  constexpr double kScale = 0.25;  // as when four batches are accumulated
  network.step(random, kScale);
  std::vector<std::vector<double>> gradients;
  double largest = 0;
  for (int id = 0; id < network.parameters().count(); ++id) {
    const auto gradient = network.gradient(id);
    gradients.emplace_back(gradient.begin(), gradient.end());
    for (const double value : gradient) largest = std::max(largest, std::abs(value));
  }
  ASSERT_GT(largest, 0);

  const auto loss_at = [&](double& weight, double value) {
    const double before = weight;
    weight = value;
    const double loss = kScale * network.step(random)[0];
    weight = before;
    return loss;
  };
  for (int id = 0; id < network.parameters().count(); ++id) {
    const auto& gradient = gradients[static_cast<std::size_t>(id)];
    const auto count = static_cast<std::int64_t>(gradient.size());
    double scale = testing::kSmallestScale * largest;
    for (const double value : gradient) scale = std::max(scale, std::abs(value));
    for (std::int64_t probe = 0; probe < std::min<std::int64_t>(count, 4); ++probe) {
      const auto index = static_cast<std::size_t>(probe * 7919 % count);
      double& weight = network.weight(id)[index];
      const double w = weight;
      // Small enough that no maximum over time changes hands, large enough that rounding does not show.
      constexpr double kStep = 1e-5;
      const double derivative = (loss_at(weight, w + kStep) - loss_at(weight, w - kStep)) / (2 * kStep);
      EXPECT_NEAR(gradient[index], derivative, testing::kCentralDifferences * std::max(scale, 1e-3 * largest))
          << network.parameters().specs()[static_cast<std::size_t>(id)].name << "[" << index << "]";
    }
  }
}

// Logits, losses and gradients of one step.
template <typename T>
std::vector<T> numbers_of_step(const GradientCase& c, Activations activations) {
  Network<T> network(c.config, c.losses, 6, 2, activations);
  randomise(network, c.config.num_classes);
  const std::vector<double> losses = network.step({.seed = 5, .step = 1, .first_sample = 12}, 0.5);
  std::vector<T> all(network.logits().begin(), network.logits().end());
  for (const double loss : losses) all.push_back(static_cast<T>(loss));
  for (int id = 0; id < network.parameters().count(); ++id) {
    const auto gradient = network.gradient(id);
    all.insert(all.end(), gradient.begin(), gradient.end());
  }
  return all;
}

template <typename T>
void expect_the_same_bits(const GradientCase& c) {
  const std::vector<T> kept = numbers_of_step<T>(c, Activations::kKeep);
  const std::vector<T> recomputed = numbers_of_step<T>(c, Activations::kRecompute);
  ASSERT_EQ(kept.size(), recomputed.size());
  EXPECT_EQ(std::memcmp(kept.data(), recomputed.data(), kept.size() * sizeof(T)), 0)
      << c.config.num_layers << " layers";
}

TEST_P(WholeModel, GivesTheSameBitsWithActivationsRecomputed) {
  GradientCase c = GetParam();
  for (const std::int64_t layers : {1, 2, 4}) {
    c.config.num_layers = layers;
    expect_the_same_bits<float>(c);
    expect_the_same_bits<double>(c);
  }
}

TEST_P(WholeModel, GivesTheSameBitsOnAnyNumberOfThreads) {
  const auto& [name, config, losses] = GetParam();
  std::vector<float> first;
  for (const int threads : {1, 2, 3, 5}) {
    Network<float> network(config, losses, 6, threads);
    randomise(network, config.num_classes);
    network.step({.seed = 5, .step = 1});
    std::vector<float> all;
    for (int id = 0; id < network.parameters().count(); ++id) {
      const auto gradient = network.gradient(id);
      all.insert(all.end(), gradient.begin(), gradient.end());
    }
    if (first.empty())
      first = all;
    else
      EXPECT_TRUE(std::equal(first.begin(), first.end(), all.begin(), all.end())) << threads << " threads";
  }
}

std::string test_name(const ::testing::TestParamInfo<GradientCase>& case_info) {
  return case_info.param.name;
}

INSTANTIATE_TEST_SUITE_P(All, WholeModel, ::testing::ValuesIn(gradient_cases()), test_name);

TEST(Dropout, OfARankIsItsSliceOfTheGlobalMask) {
  // Classification alone: InfoNCE couples the samples of a batch.
  const ModelConfig config = small(CrossAttention::kA2v, PositionalEncoding::kNone, 1);
  Network<double> whole(config, kPlain, 6);
  Network<double> half(config, kPlain, 3);
  randomise(whole, 1);
  randomise(half, 1);
  whole.step({.seed = 5, .step = 1});
  const std::size_t visual = half.visual().size();
  const std::size_t audio = half.audio().size();
  for (std::int64_t part = 0; part < 2; ++part) {
    const auto p = static_cast<std::size_t>(part);
    std::copy_n(whole.visual().begin() + static_cast<std::ptrdiff_t>(p * visual), visual,
                half.visual().begin());
    std::copy_n(whole.audio().begin() + static_cast<std::ptrdiff_t>(p * audio), audio, half.audio().begin());
    half.step({.seed = 5, .step = 1, .first_sample = 3 * part});
    for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(half.logits()[i], whole.logits()[3 * p + i], 1e-12);
  }
}

TEST(Dropout, ChangesWithTheStepAndTheSeed) {
  Network<float> network(small(CrossAttention::kA2v, PositionalEncoding::kNone, 1), kPlain, 4);
  randomise(network, 1);
  const auto logit = [&](const StepRandom& random) {
    network.step(random);
    return network.logits()[0];
  };
  const float first = logit({.seed = 1, .step = 1});
  EXPECT_EQ(first, logit({.seed = 1, .step = 1}));
  EXPECT_NE(first, logit({.seed = 1, .step = 2}));
  EXPECT_NE(first, logit({.seed = 2, .step = 1}));
}

}  // namespace
}  // namespace voca::model
