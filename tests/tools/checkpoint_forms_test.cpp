// What training scripts of others save: tests/golden/checkpoint/make_training_scripts.py made the files.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/checkpoint/torch/pt_file.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::Scratch;
using engine::Dict;
using engine::NamedTensor;
using engine::Value;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string script(const std::string& name) {
  return (fs::path(VOCA_GOLDEN_DIR) / "checkpoint" / ("script_" + name + ".pt")).string();
}

class CheckpointForms : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    make_small_tree(here() / "tree", 24);
    pack_small_tree(here() / "tree", here() / "packed.h5");
    expected_ = predict(script("plain"));
  }
  static void TearDownTestSuite() {
    delete scratch_;
    scratch_ = nullptr;
  }
  static fs::path here() { return scratch_->path(); }
  static Outcome run_predict(const std::string& checkpoint, const Words& more = {}) {
    return run(Words{"predict", "--checkpoint=" + checkpoint, "--features_root=packed.h5"} + more, here());
  }
  static std::string predict(const std::string& checkpoint, const Words& more = {}) {
    const Outcome outcome = run_predict(checkpoint, more);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  }
  static std::string refusal(const Words& words, int exit_code = 65) {
    const Outcome outcome = run(words, here());
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    return outcome.message();
  }
  static std::string refusal_of(const std::string& checkpoint, const Words& more = {}, int exit_code = 65) {
    return refusal(Words{"predict", "--checkpoint=" + checkpoint, "--features_root=packed.h5"} + more,
                   exit_code);
  }

  /// The weights of script_plain.pt.
  static std::vector<NamedTensor> weights() {
    return engine::read_training_checkpoint(script("plain")).state_dicts.at(0).tensors;
  }
  static Value state_dict(const std::function<std::string(const std::string&)>& rename) {
    Dict dict;
    dict.ordered_dict = true;
    for (const NamedTensor& named : weights()) dict.add(rename(named.name), named.tensor);
    return dict;
  }
  static Value state_dict(const std::string& prefix = "") {
    return state_dict([&](const std::string& name) { return prefix + name; });
  }
  static Value options(const Value& heads = 2) {
    Dict dict;
    dict.add("num_heads", heads);
    dict.add("seq_len", 12);
    return dict;
  }
  static std::string save(const std::string& name,
                          const std::vector<std::pair<std::string, Value>>& entries) {
    Dict root;
    for (const auto& [key, value] : entries) root.add(key, value);
    engine::write_pt(here() / name, root);
    return name;
  }
  /// A bare state dict of these names; all tensors are small.
  static std::string save_names(const std::string& name, const std::vector<std::string>& names) {
    static const std::vector<float> ones(4, 1.0F);
    Dict root;
    for (const std::string& parameter : names) root.add(parameter, engine::borrow_tensor(ones, {2, 2}));
    engine::write_pt(here() / name, root);
    return name;
  }
  /// script_plain.pt with one parameter replaced by `numbers`.
  static std::string save_changed(const std::string& name, const std::string& parameter,
                                  const std::function<void(std::vector<float>&)>& change) {
    Dict dict;
    std::vector<float> numbers;
    for (const NamedTensor& named : weights()) {
      if (named.name != parameter) {
        dict.add(named.name, named.tensor);
        continue;
      }
      numbers.resize(static_cast<std::size_t>(named.tensor.elements()));
      named.tensor.copy_to(std::span<float>(numbers));
      change(numbers);
      dict.add(named.name, engine::borrow_tensor(numbers, named.tensor.shape));
    }
    return save(name, {{"model", dict}, {"config", options()}});
  }

  static std::string expected_;

 private:
  static Scratch* scratch_;
};
std::string CheckpointForms::expected_;
Scratch* CheckpointForms::scratch_ = nullptr;

TEST_F(CheckpointForms, OptimizersAndObjectsBesideTheWeightsDoNotMatter) {
  EXPECT_THAT(expected_, StartsWith("id,label,split,logit,prob_real\n"));
  EXPECT_EQ(predict(script("torchrun")), expected_);
  EXPECT_EQ(predict(script("lightning")), expected_);
  EXPECT_EQ(predict(script("half"), {"--num_heads=2", "--seq_len=12"}), expected_);
  EXPECT_EQ(predict(script("averaged"), {"--weights=ema"}), expected_);
  EXPECT_NE(predict(script("averaged"), {"--weights=model"}), expected_);
  const Outcome evaluated =
      run({"eval", "--checkpoint=" + script("torchrun"), "--features_root=packed.h5", "--json"}, here());
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.err;
  EXPECT_EQ(evaluated.json()["threshold_from"], "the checkpoint carries none fitted on val");
}

TEST_F(CheckpointForms, InspectShowsWhatIsNotLoadedAndWhereTheWeightsAre) {
  const Outcome text = run({"inspect", script("torchrun")}, here());
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(
      text.out,
      AllOf(HasSubstr("args: <argparse.Namespace, not loaded>\n  num_heads: 2\n"),
            HasSubstr("seed: 18446744073709551615\n"),
            HasSubstr("weights: 34 parameters of CrossModalTransformer under model_state_dict\n"),
            HasSubstr("not loaded, and nothing of it was run: scheduler.mode: "), Not(HasSubstr("refuse"))));
  EXPECT_THAT(
      run({"inspect", script("averaged")}, here()).out,
      HasSubstr("weights: cannot be loaded: has weights under model and ema; choose with --weights model"));
  const auto json = run({"inspect", script("averaged"), "--json"}, here()).json();
  EXPECT_TRUE(json["weights"].is_null());
  EXPECT_EQ(json["not_loaded"].size(), 0U);
}

TEST_F(CheckpointForms, ExportWritesTheWeightsUnderTheNetworksNames) {
  const Outcome exported =
      run({"inspect", script("averaged"), "--export=ema.safetensors", "--weights=ema"}, here());
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  EXPECT_EQ(predict("ema.safetensors"), expected_);
  EXPECT_THAT(refusal({"inspect", script("averaged"), "--export=two.safetensors"}),
              HasSubstr("--weights ema"));
  EXPECT_FALSE(fs::exists(here() / "two.safetensors"));
  EXPECT_THAT(refusal({"inspect", script("averaged"), "--weights=ema"}, 64), HasSubstr("--export"));
}

TEST_F(CheckpointForms, WeightsAreFoundUnderEveryUsualKeyAndPrefix) {
  for (const char* key : {"model_state_dict", "state_dict", "model", "net", "ema", "generator"})
    EXPECT_EQ(predict(save("key.pt", {{"epoch", 3}, {key, state_dict()}, {"config", options()}})), expected_)
        << key;
  for (const char* prefix :
       {"module.", "_orig_mod.", "model.", "net.", "_fsdp_wrapped_module.", "module._orig_mod.model.",
        "model.module.net._orig_mod.", "_fsdp_wrapped_module._orig_mod.module."})
    EXPECT_EQ(predict(save("prefix.pt", {{"model", state_dict(prefix)}, {"args", options()}})), expected_)
        << prefix;
  const auto fsdp = [](const std::string& name) {
    std::string inside = name;
    if (const std::size_t at = inside.find("layers.0."); at != std::string::npos)
      inside.insert(at + 9, "_fsdp_wrapped_module._checkpoint_wrapped_module.");
    if (inside.starts_with("temporal_encoder.")) inside.insert(17, "_fsdp_wrapped_module.");
    return "_fsdp_wrapped_module." + inside;
  };
  EXPECT_EQ(predict(save("fsdp.pt", {{"model", state_dict(fsdp)}, {"hparams", options()}})), expected_);
}

TEST_F(CheckpointForms, ABareStateDictMayHoldCounters) {
  EXPECT_THAT(predict(script("bare_average"), {"--num_heads=2", "--seq_len=12"}), StartsWith("id,"));
}

TEST_F(CheckpointForms, SeveralWeightsAreToBeChosenFrom) {
  EXPECT_THAT(refusal_of(script("averaged")),
              HasSubstr("averaged.pt: has weights under model and ema; choose with "
                        "--weights model or --weights ema"));
  EXPECT_THAT(refusal_of(script("averaged"), {"--weights=emma"}, 64),
              AllOf(HasSubstr("--weights emma: "), HasSubstr("they are under model, ema")));
  // A LightningModule with an average: one dict, two prefixes.
  Dict both;
  for (const char* prefix : {"model.", "ema.module."}) {
    const Value copy = state_dict(prefix);
    for (const auto& [name, tensor] : copy.entries()) both.add(*name.if_string(), tensor);
  }
  save("lightning.pt", {{"state_dict", both}, {"hyper_parameters", options()}});
  EXPECT_THAT(refusal_of("lightning.pt"), HasSubstr("under state_dict.model and state_dict.ema;"));
  for (const char* key : {"state_dict.ema", "ema"})
    EXPECT_EQ(predict("lightning.pt", {std::string("--weights=") + key}), expected_) << key;
  // One dict under two names is one.
  const Value once = state_dict();
  save("twice.pt", {{"model", once}, {"state_dict", once}, {"config", options()}});
  EXPECT_EQ(predict("twice.pt"), expected_);
}

TEST_F(CheckpointForms, WhatTheFileDoesNotTellIsAskedForByOption) {
  const std::string bare = save("bare.pt", {{"model", state_dict()}});
  EXPECT_THAT(refusal_of(bare), HasSubstr("bare.pt: no num_heads and no seq_len in its config, and the "
                                          "shapes of weights do not tell; give --num_heads N --seq_len T"));
  EXPECT_THAT(refusal_of(bare, {"--num_heads=2"}), HasSubstr("give --seq_len T as"));
  Dict endless;
  endless.add("num_heads", 2);
  endless.add("seq_len", std::int64_t{1} << 40);
  EXPECT_THAT(
      refusal_of(save("endless.pt", {{"model", state_dict()}, {"config", endless}})),
      HasSubstr(
          "endless.pt: seq_len 1099511627776 in its config, and the shapes of weights do not tell; give "
          "--seq_len T"));
  EXPECT_EQ(predict(bare, {"--num_heads=2", "--seq_len=12", "--cross_attention=a2v"}), expected_);
  EXPECT_EQ(
      run({"eval", "--checkpoint=bare.pt", "--features_root=packed.h5", "--num_heads=2", "--seq_len=12"},
          here())
          .exit_code,
      0);
  EXPECT_THAT(refusal_of(bare, {"--num_heads=3", "--seq_len=12"}, 64),
              HasSubstr("--num_heads 3: does not divide hidden 4 of bare.pt"));
  EXPECT_THAT(refusal_of(bare, {"--num_heads=-1", "--seq_len=12"}, 64), HasSubstr("--num_heads: is -1"));
  EXPECT_THAT(refusal_of(bare, {"--num_heads=2", "--seq_len=12", "--cross_attention=bidirectional"}, 64),
              HasSubstr("--cross_attention bidirectional: the weights of bare.pt are a2v"));
}

TEST_F(CheckpointForms, AnOptionThatContradictsTheFileIsRefusedByName) {
  const std::string told = save("told.pt", {{"model", state_dict()}, {"config", options()}});
  EXPECT_THAT(refusal_of(told, {"--num_heads=4"}, 64), HasSubstr("--num_heads 4: told.pt says 2"));
  EXPECT_THAT(refusal_of(told, {"--seq_len=16"}, 64), HasSubstr("--seq_len 16: told.pt says 12"));
  EXPECT_EQ(predict(told, {"--num_heads=2", "--seq_len=12"}), expected_);
}

TEST_F(CheckpointForms, NumbersOfAConfigMayBeTexts) {
  EXPECT_EQ(predict(save("text.pt", {{"model", state_dict()}, {"config", options("2")}})), expected_);
  EXPECT_EQ(predict(save("root.pt", {{"model", state_dict()}, {"num_heads", "2"}, {"seq_len", 12.0}})),
            expected_);
  Dict nested;
  nested.add("model", options("2"));
  EXPECT_EQ(predict(save("nested.pt", {{"model", state_dict()}, {"config", nested}})), expected_);
  EXPECT_THAT(refusal_of(save("word.pt", {{"model", state_dict()}, {"config", options("two")}})),
              HasSubstr("word.pt: num_heads \"two\" in its config"));
}

TEST_F(CheckpointForms, AnotherNetworkIsCalledSo) {
  EXPECT_THAT(
      refusal_of(save_names("three.pt", {"attn_query", "cross_modal_branch.v_proj.weight",
                                         "cross_modal_branch.temporal_encoder.layers.0.norm1.weight",
                                         "audio_only_branch.classifier.0.weight"})),
      HasSubstr("three.pt: is the three-branch detector, not CrossModalTransformer: its parameters are "
                "cross_modal_branch.v_proj.weight"));
  EXPECT_THAT(
      refusal_of(save_names("local.pt", {"alpha", "v_proj.weight", "inconsistency_module.mlp.0.weight",
                                         "temporal_encoder.layers.0.norm1.weight"})),
      HasSubstr("local.pt: is the frame localisation network, not CrossModalTransformer"));
  EXPECT_THAT(
      refusal_of(save_names("resnet.pt", {"module.conv1.weight", "module.bn1.weight",
                                          "module.layer1.0.conv1.weight", "module.fc.weight"})),
      HasSubstr("resnet.pt: is another network, not CrossModalTransformer: its parameters are conv1.weight, "
                "bn1.weight, layer1.0.conv1.weight and 1 more, where v_proj.0.weight was expected"));
  EXPECT_THAT(refusal_of(save("none.pt", {{"epoch", 3}})), HasSubstr("none.pt: holds no weights"));
  EXPECT_THAT(refusal({"inspect", "resnet.pt", "--export=resnet.safetensors"}),
              HasSubstr("is another network"));
  EXPECT_FALSE(fs::exists(here() / "resnet.safetensors"));
}

TEST_F(CheckpointForms, CheckpointsOfOtherClassesAreNotAveraged) {
  Dict classes;
  for (const NamedTensor& named : weights()) {
    const bool last = named.name.starts_with("classifier.3.");
    static const std::vector<float> ones(8, 1.0F);
    std::vector<std::int64_t> shape = named.tensor.shape;
    shape[0] *= last ? 4 : 1;
    const auto count = static_cast<std::size_t>(shape.size() == 2 ? 8 : 4);
    classes.add(named.name, last ? Value(engine::borrow_tensor(std::span(ones).first(count), shape))
                                 : Value(named.tensor));
  }
  save("four.pt", {{"model", classes}, {"config", options()}});
  EXPECT_THAT(refusal_of(script("plain") + ",four.pt"),
              AllOf(HasSubstr("plain.pt has num_classes 1 and "), HasSubstr("four.pt has 4")));
}

TEST_F(CheckpointForms, AParameterTooManyOrTooFewIsNamed) {
  Dict more = *state_dict("model.").if_dict();
  more.add("model.gate.weight", weights()[0].tensor);
  more.add("criterion.pos_weight", weights()[0].tensor);
  EXPECT_THAT(refusal_of(save("more.pt", {{"state_dict", more}, {"config", options()}})),
              AllOf(HasSubstr("1 unexpected: model.gate.weight"), Not(HasSubstr("criterion"))));
  Dict fewer = *state_dict().if_dict();
  fewer.items.pop_back();
  EXPECT_THAT(refusal_of(save("fewer.pt", {{"state_dict", fewer}, {"config", options()}})),
              HasSubstr("1 missing: contrast_proj.2.bias"));
}

TEST_F(CheckpointForms, WeightsThatAreNotFiniteAreRefusedByName) {
  for (const auto& [name, bad] : {std::pair("nan.pt", std::numeric_limits<float>::quiet_NaN()),
                                  std::pair("inf.pt", -std::numeric_limits<float>::infinity())}) {
    save_changed(name, "cross_norm.weight",
                 [value = bad](std::vector<float>& numbers) { numbers[2] = value; });
    EXPECT_THAT(
        refusal_of(name, {"--out=bad.csv"}),
        AllOf(HasSubstr(std::string(name) + ": cross_norm.weight is "), HasSubstr(" at (2) (1 of its 4")));
    EXPECT_THAT(refusal({"inspect", name, "--export=bad.safetensors"}), HasSubstr("cross_norm.weight is "));
  }
  EXPECT_FALSE(fs::exists(here() / "bad.csv"));
  EXPECT_FALSE(fs::exists(here() / "bad.safetensors"));
}

TEST_F(CheckpointForms, AScoreThatOverflowsNamesTheCheckpointAndTheVideo) {
  save_changed("large.pt", "classifier.0.weight",
               [](std::vector<float>& numbers) { std::fill(numbers.begin(), numbers.end(), 3e38F); });
  const auto names_both = AllOf(HasSubstr("large.pt: the score of "), HasSubstr(" in packed.h5 is "));
  EXPECT_THAT(refusal_of("large.pt", {"--out=bad.csv"}), names_both);
  EXPECT_FALSE(fs::exists(here() / "bad.csv"));
  EXPECT_THAT(refusal({"eval", "--checkpoint=large.pt", "--features_root=packed.h5"}), names_both);
}

TEST_F(CheckpointForms, ADecisionThresholdIsOneThatTrainingFits) {
  const double infinity = std::numeric_limits<double>::infinity();
  const double above_one = std::nextafter(1.0, 2.0);  // fitted where nothing is to be taken for real
  for (const auto& [threshold, taken] :
       {std::pair{0.25, true}, {above_one, true}, {infinity, false}, {1.5, false}, {-0.1, false}}) {
    Dict record;
    record.add("format_version", 1);
    record.add("threshold", threshold);
    save("threshold.pt",
         {{"model_state_dict", state_dict()}, {"config", options()}, {"engine", std::move(record)}});
    const Outcome outcome = run_predict("threshold.pt");
    EXPECT_EQ(outcome.exit_code, taken ? 0 : 65) << threshold << outcome.err;
    EXPECT_EQ(outcome.err.find("threshold.pt: its decision threshold ") == std::string::npos, taken)
        << outcome.err;
    const Outcome evaluation =
        run({"eval", "--checkpoint=threshold.pt", "--features_root=packed.h5"}, here());
    EXPECT_EQ(evaluation.exit_code, taken ? 0 : 65) << threshold << evaluation.err;
  }
}

class InitFrom : public CheckpointForms {
 protected:
  static Words training(const std::string& checkpoint, const Words& more = {}) {
    return Words{"train",
                 "--features_root=packed.h5",
                 "--hidden=4",
                 "--num_layers=1",
                 "--num_heads=2",
                 "--seq_len=12",
                 "--epochs=1",
                 "--batch_size=8",
                 "--warmup_epochs=0",
                 "--run_dir=run",
                 "--overwrite",
                 "--init_from=" + checkpoint} +
           more;
  }
};

TEST_F(InitFrom, TakesTheWeightsOfAnyScript) {
  for (const char* name : {"plain", "torchrun", "lightning", "half"})
    EXPECT_EQ(run(training(script(name)), here()).exit_code, 0) << name;
  EXPECT_EQ(run(training(script("averaged"), {"--weights=ema"}), here()).exit_code, 0);
  EXPECT_THAT(refusal(training(script("averaged"))), HasSubstr("choose with --weights model"));
}

TEST_F(InitFrom, SaysInWhichSizesItDiffers) {
  EXPECT_THAT(refusal(training(script("plain"), {"--hidden=16", "--num_layers=4", "--num_heads=8"})),
              AllOf(HasSubstr("--init_from "),
                    HasSubstr("plain.pt: it has hidden 4, num_layers 1, num_heads 2; asked "
                              "for 16, 4, 8; give --hidden 4 --num_layers 1 --num_heads 2, or "
                              "leave --init_from out")));
  EXPECT_THAT(refusal(training(script("plain"), {"--cross_attention=bidirectional"})),
              HasSubstr("it has cross_attention a2v; asked for bidirectional"));
  EXPECT_THAT(refusal(training(script("plain"), {"--positional_encoding=learned"})),
              HasSubstr("it has positional_encoding none; asked for learned"));
  EXPECT_EQ(run(training(script("plain"), {"--seq_len=16"}), here()).exit_code, 0)
      << "no positions are learned";
  EXPECT_THAT(refusal(training(script("half"), {"--num_classes=2"})),
              HasSubstr("it has num_classes 1; asked for 2"));
  EXPECT_THAT(refusal(Words{"train", "--features_root=packed.h5", "--weights=ema"}, 64),
              HasSubstr("--weights ema: chooses among the weights of --init_from"));
}

}  // namespace
}  // namespace voca::tools::testing
