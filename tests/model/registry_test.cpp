#include "model/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "engine/base/error.h"
#include "tests/engine/support/files.h"

namespace voca::model {
namespace {

using engine::test::message_of;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

/// A configuration with a size of its own in every place.
ModelConfig small(const NetworkKind& kind) {
  return {.model = std::string(kind.name),
          .visual_dim = 10,
          .audio_dim = 14,
          .hidden = 12,
          .num_layers = 2,
          .num_heads = 3,
          .seq_len = 9,
          .num_classes = 4};
}

std::vector<StateEntry> state_of(const engine::Model& model) {
  std::vector<StateEntry> state;
  for (const engine::ParameterSpec& spec : model.parameters()) state.push_back({spec.name, spec.shape});
  return state;
}

void expect_unique(const std::vector<engine::TensorSpec>& specs) {
  std::set<std::string> names;
  for (const engine::TensorSpec& spec : specs) EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
  EXPECT_THAT(names, Not(IsEmpty()));
}

TEST(Registry, NamesEachNetworkOnceAndTheDefaultFirst) {
  std::set<std::string_view> names;
  for (const NetworkKind* const kind : networks()) {
    EXPECT_TRUE(names.insert(kind->name).second) << kind->name;
    EXPECT_EQ(&network(kind->name), kind);
    EXPECT_THAT(network_names(), HasSubstr(std::string(kind->name)));
  }
  EXPECT_EQ(networks().front()->name, ModelConfig{}.model);
  EXPECT_THAT(message_of<engine::UsageError>([] { (void)network("resnet"); }),
              StartsWith("--model resnet: expected " + network_names()));
}

TEST(Registry, EveryNetworkIsRecognisedByItsOwnParameters) {
  for (const NetworkKind* const kind : networks()) {
    const ModelConfig config = small(*kind);
    const std::vector<StateEntry> state = state_of(*make_network(config, {}));
    for (const NetworkKind* const other : networks())
      EXPECT_EQ(other->recognise(state), other == kind) << other->name << " of " << kind->name;
    const ModelConfig inferred = infer_config(state, {.num_heads = 3, .seq_len = 9});
    EXPECT_EQ(inferred.model, kind->name);
    const std::vector<StateEntry> again = state_of(*make_network(inferred, {}));
    EXPECT_TRUE(std::equal(
        again.begin(), again.end(), state.begin(), state.end(),
        [](const StateEntry& a, const StateEntry& b) { return a.name == b.name && a.shape == b.shape; }))
        << kind->name;
    std::size_t telling = 0;
    for (const StateEntry& entry : state) {
      EXPECT_TRUE(is_parameter_name(entry.name)) << entry.name;
      telling += is_telling_name(entry.name) ? 1 : 0;
    }
    EXPECT_GT(telling, 0U) << kind->name;
    EXPECT_THAT(network_titles(), HasSubstr(std::string(kind->title)));
  }
  EXPECT_THAT(message_of<engine::DataError>([] {
                (void)infer_config({{"fc.weight", {2, 3}}}, {});
              }),
              HasSubstr("not a state dict of this network"));
}

TEST(Registry, EveryNetworkSaysWhatItTakesGivesAndCosts) {
  for (const NetworkKind* const kind : networks()) {
    const ModelConfig config = small(*kind);
    const LossConfig losses{.use_contrastive = true};
    const auto model = make_network(config, losses);
    const engine::ModelSignature& signature = model->signature();
    expect_unique(signature.batch.inputs);
    expect_unique(signature.batch.targets);
    expect_unique(signature.outputs);
    ASSERT_FALSE(signature.losses.empty());
    EXPECT_EQ(signature.losses[0], std::string_view("loss"));
    EXPECT_LE(signature.losses.size(), engine::kMaxLosses);
    for (const engine::DType dtype : {engine::DType::kF32, engine::DType::kF64}) {
      EXPECT_THAT(plan_training(*model, dtype, 5).bytes, Gt(plan_prediction(*model, dtype, 5).bytes));
      EXPECT_THAT(plan_training(*model, dtype, 5).bytes, Gt(plan_training(*model, dtype, 4).bytes));
    }
    EXPECT_GT(count_flops(config, losses, 5).all(), count_flops(config, losses, 4).all());
    EXPECT_GT(count_flops(config, losses, 5, Activations::kRecompute).all(),
              count_flops(config, losses, 5).all());
    EXPECT_THROW((void)kind->make_task(config, {})->selection("speed"), engine::UsageError);
  }
}

}  // namespace
}  // namespace voca::model
