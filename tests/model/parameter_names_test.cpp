#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/checkpoint/torch/training_checkpoint.h"
#include "model/other_networks.h"
#include "model/parameter_table.h"
#include "model/registry.h"

namespace voca::model {
namespace {

std::vector<std::string> names_in(const std::string& golden) {
  const auto path = std::filesystem::path(VOCA_GOLDEN_DIR) / "checkpoint" / golden;
  std::vector<std::string> names;
  const engine::LoadedCheckpoint loaded = engine::read_training_checkpoint(path);
  for (const engine::NamedTensor& named : loaded.state_dicts.at(0).tensors) names.push_back(named.name);
  return names;
}

std::vector<std::string> names_of(CrossAttention form, std::string_view prefix) {
  std::vector<std::string> names;
  const ModelConfig config{.num_layers = 1, .cross_attention = form};
  for (const engine::ParameterSpec& spec : make_parameter_table(config).specs)
    names.push_back(std::string(prefix) + spec.name);
  return names;
}

// docs/crossmodal_transformer.py made these files: tests/golden/checkpoint/make_training_scripts.py.
TEST(ParameterNames, AreThoseOfThePyTorchModuleInItsOrder) {
  EXPECT_EQ(names_in("script_half.pt"), names_of(CrossAttention::kA2v, ""));
  std::vector<std::string> averaged = names_of(CrossAttention::kBidirectional, "module.");
  averaged.insert(averaged.begin(), "n_averaged");
  EXPECT_EQ(names_in("script_bare_average.pt"), averaged);
}

TEST(ParameterNames, KnowEveryFormAndLayerAndNothingElse) {
  for (const CrossAttention form : {CrossAttention::kA2v, CrossAttention::kBidirectional}) {
    const ModelConfig config{
        .num_layers = 12, .cross_attention = form, .positional_encoding = PositionalEncoding::kLearned};
    for (const engine::ParameterSpec& spec : make_parameter_table(config).specs)
      EXPECT_TRUE(is_parameter_name(spec.name)) << spec.name;
  }
  for (const char* name :
       {"", "v_proj", "v_proj.weight", "v_proj.0.weight.", "model.v_proj.0.weight", "n_averaged",
        "temporal_encoder.layers..norm1.weight", "temporal_encoder.layers.x.norm1.weight",
        "temporal_encoder.layers.0", "temporal_encoder.layers.0.norm3.weight"})
    EXPECT_FALSE(is_parameter_name(name)) << name;
}

TEST(ParameterNames, TellOtherNetworksByTheirs) {
  const auto title = [](const std::vector<std::string>& names) {
    const OtherNetwork* other = find_other_network(names);
    return other == nullptr ? std::string_view() : other->title;
  };
  EXPECT_EQ(title({"attn_query", "cross_modal_branch.v_proj.weight"}), "the three-branch detector");
  EXPECT_EQ(title({"model.cross_modal_branch.v_proj.weight"}), "the three-branch detector");
  EXPECT_EQ(title({"alpha", "v_proj.weight", "inconsistency_module.mlp.0.weight"}),
            "the frame localisation network");
  EXPECT_EQ(title({"conv1.weight"}), "");
}

}  // namespace
}  // namespace voca::model
