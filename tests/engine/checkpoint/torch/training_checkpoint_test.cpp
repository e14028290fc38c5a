#include "engine/checkpoint/torch/training_checkpoint.h"

#include <nlohmann/json.hpp>

#include "tests/engine/checkpoint/checkpoint_support.h"

namespace voca::engine {
namespace {

using test::floats;
using test::golden;
using test::message_of;
using test::pattern;
using test::TemporaryFolder;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Shape64 = std::vector<std::int64_t>;

struct Entry {
  std::string name;
  Shape64 shape;
};

/// The module Small of make_checkpoints.py.
const std::vector<Entry> kSmall = {{"proj.0.weight", {4, 3}},     {"proj.0.bias", {4}},
                                   {"proj.1.weight", {4}},        {"proj.1.bias", {4}},
                                   {"classifier.weight", {1, 4}}, {"classifier.bias", {1}}};

std::size_t count_of(const Shape64& shape) {
  std::size_t count = 1;
  for (const auto extent : shape) count *= static_cast<std::size_t>(extent);
  return count;
}

/// Memory for the parameters of Small and targets that point to it.
struct SmallMemory {
  std::vector<std::vector<float>> memory;
  std::vector<ParameterTarget> targets;
  SmallMemory() {
    for (const Entry& entry : kSmall) memory.emplace_back(count_of(entry.shape), -99.0F);
    for (std::size_t i = 0; i < kSmall.size(); ++i)
      targets.push_back({kSmall[i].name, kSmall[i].shape, memory[i]});
  }
  void expect_pattern(std::size_t first) const {
    for (std::size_t i = 0; i < memory.size(); ++i)
      EXPECT_EQ(memory[i], pattern(first + i, memory[i].size())) << targets[i].name;
  }
};

/// What make_checkpoints.py's training() holds, in memory of ours.
struct SmallTraining {
  std::vector<std::vector<float>> memory;
  TrainingCheckpoint checkpoint;
  SmallTraining() {
    memory.reserve(3 * kSmall.size());
    for (std::size_t i = 0; i < kSmall.size(); ++i) {
      const std::size_t count = count_of(kSmall[i].shape);
      for (const std::size_t k : {std::size_t{0}, std::size_t{10}, std::size_t{20}})
        memory.push_back(pattern(k + i, count));
      checkpoint.parameters.push_back(
          {kSmall[i].name, kSmall[i].shape, memory[3 * i], memory[3 * i + 1], memory[3 * i + 2]});
    }
    checkpoint.epoch = 7;
    checkpoint.optimizer = AdamWState{.step = 2, .lr = 3e-4, .options = {.weight_decay = 1e-4}};
    checkpoint.val_acc = 0.875;
    checkpoint.val_auc = 0.9375;
    checkpoint.config = {{"hidden", 768},          {"lr", 3e-4},       {"use_contrastive", true},
                         {"save_path", "best.pt"}, {"folds", -3},      {"schedule", nullptr},
                         {"betas", {0.9, 0.999}},  {"far", 5000000000}};
    checkpoint.engine = {{"git_revision", "0123abc"}, {"split_hash", "feed"}, {"threshold", 0.25}};
  }
};

void expect_small_training(const LoadedCheckpoint& loaded) {
  SmallMemory weights;
  ASSERT_EQ(loaded.state_dicts.size(), 1U);
  EXPECT_EQ(loaded.state_dicts[0].key, "model_state_dict");
  load_parameters("file", loaded.state_dicts[0].tensors, weights.targets);
  weights.expect_pattern(0);
  EXPECT_THAT(loaded.not_loaded, IsEmpty());
  EXPECT_EQ(loaded.config["hidden"], 768);
  EXPECT_EQ(loaded.config["lr"], 3e-4);
  EXPECT_EQ(loaded.config["use_contrastive"], true);
  EXPECT_EQ(loaded.config["save_path"], "best.pt");
  EXPECT_EQ(loaded.config["folds"], -3);
  EXPECT_TRUE(loaded.config["schedule"].is_null());
  EXPECT_EQ(loaded.config["betas"], nlohmann::ordered_json({0.9, 0.999}));
}

TEST(TrainingCheckpoint, ReadsWhatAPyTorchTrainingSaved) {
  const LoadedCheckpoint loaded = read_training_checkpoint(golden("training.pt"));
  expect_small_training(loaded);
  EXPECT_EQ(loaded.config["fine"], true);
  EXPECT_TRUE(loaded.engine.empty());
}

TEST(TrainingCheckpoint, ComesBackAsItWasSaved) {
  const TemporaryFolder folder;
  const SmallTraining training;
  write_training_checkpoint(folder / "a.pt", training.checkpoint);
  const LoadedCheckpoint loaded = read_training_checkpoint(folder / "a.pt");
  expect_small_training(loaded);
  EXPECT_EQ(loaded.config["far"], 5000000000);
  EXPECT_EQ(loaded.engine["format_version"], kCheckpointFormatVersion);
  EXPECT_EQ(loaded.engine["threshold"], 0.25);
  EXPECT_EQ(loaded.engine["split_hash"], "feed");
}

// check_with_torch.py showed that PyTorch loads the golden file; the same bytes are loaded the same way.
TEST(TrainingCheckpoint, IsByteForByteTheFileThatPyTorchAccepted) {
  const TemporaryFolder folder;
  const SmallTraining training;
  write_training_checkpoint(folder / "a.pt", training.checkpoint);
  const std::string written = test::read_bytes(folder / "a.pt");
  if (const char* target = std::getenv("VOCA_WRITE_GOLDEN")) test::write_bytes(target, written);
  EXPECT_EQ(written, test::read_bytes(golden("written_checkpoint.pt")));
}

// The same with a file written now and the PyTorch at hand; by hand as check_with_torch.py says.
TEST(TrainingCheckpoint, IsTakenByPyTorchWhereItIsInstalled) {
  const std::string python = "/usr/bin/python3 -B ";
  if (std::system((python + "-c 'import torch' 2>/dev/null").c_str()) != 0)
    GTEST_SKIP() << "no PyTorch here; IsByteForByteTheFileThatPyTorchAccepted stands for this test";
  const TemporaryFolder folder;
  const SmallTraining training;
  write_training_checkpoint(folder / "a.pt", training.checkpoint);
  const std::string script = golden("check_with_torch.py").string();
  EXPECT_EQ(std::system((python + "'" + script + "' '" + (folder / "a.pt").string() + "'").c_str()), 0);
}

/// The entry of a written checkpoint's dictionary.
Value entry_of(const std::filesystem::path& path, std::string_view key) {
  const PtFile file = read_pt(path);
  const Value* value = file.value.find(key);
  return value == nullptr ? Value("missing") : *value;
}

TEST(TrainingCheckpoint, BeforeTheFirstStepHasNoMoments) {
  const TemporaryFolder folder;
  SmallTraining training;
  training.checkpoint.optimizer->step = 0;
  for (auto& parameter : training.checkpoint.parameters) parameter.exp_avg = parameter.exp_avg_sq = {};
  training.checkpoint.val_acc.reset();
  training.checkpoint.val_auc.reset();
  write_training_checkpoint(folder / "a.pt", training.checkpoint);
  const Value optimizer = entry_of(folder / "a.pt", "optimizer_state_dict");
  ASSERT_NE(optimizer.find("state"), nullptr);
  EXPECT_THAT(optimizer.find("state")->entries(), IsEmpty());
  EXPECT_TRUE(entry_of(folder / "a.pt", "val_acc").is_none());
  EXPECT_TRUE(entry_of(folder / "a.pt", "val_auc").is_none());
}

TEST(TrainingCheckpoint, WithoutAnOptimizerHasNone) {
  const TemporaryFolder folder;
  SmallTraining training;
  training.checkpoint.optimizer.reset();
  write_training_checkpoint(folder / "a.pt", training.checkpoint);
  EXPECT_TRUE(entry_of(folder / "a.pt", "optimizer_state_dict").is_none());
}

TEST(TrainingCheckpoint, KeepsASeedBeyondInt64) {
  const TemporaryFolder folder;
  SmallTraining training;
  training.checkpoint.config["seed"] = ~std::uint64_t{0};
  write_training_checkpoint(folder / "a.pt", training.checkpoint);
  EXPECT_EQ(read_training_checkpoint(folder / "a.pt").config["seed"], ~std::uint64_t{0});
}

class StateDictFile : public testing::TestWithParam<const char*> {};

TEST_P(StateDictFile, LoadsStrictly) {
  const LoadedCheckpoint loaded = read_training_checkpoint(golden(GetParam()));
  SmallMemory weights;
  ASSERT_EQ(loaded.state_dicts.size(), 1U);
  load_parameters(GetParam(), loaded.state_dicts[0].tensors, weights.targets);
  weights.expect_pattern(0);
}

INSTANTIATE_TEST_SUITE_P(EveryForm, StateDictFile,
                         testing::Values("state_dict.pt", "protocol_3.pt", "protocol_4.pt", "protocol_5.pt",
                                         "parameters.pt", "deflated.pt", "data_descriptor.pt", "zip64.pt",
                                         "big_endian.pt"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           return name.substr(0, name.find('.'));
                         });

TEST(TrainingCheckpoint, LoadsFromSafetensorsToo) {
  const TemporaryFolder folder;
  const LoadedCheckpoint loaded = read_training_checkpoint(golden("state_dict.pt"));
  write_safetensors(folder / "a.safetensors", loaded.state_dicts[0].tensors,
                    {{"config", R"({"hidden": 48})"}});
  const LoadedCheckpoint again = read_training_checkpoint(folder / "a.safetensors");
  SmallMemory weights;
  load_parameters("a.safetensors", again.state_dicts[0].tensors, weights.targets);
  weights.expect_pattern(0);
  EXPECT_EQ(again.config["hidden"], 48);
}

TEST(LoadParameters, NamesEverythingThatDoesNotFitAndWritesNothing) {
  LoadedCheckpoint loaded = read_training_checkpoint(golden("state_dict.pt"));
  SmallMemory weights;
  weights.targets[0].name = "pos_embed";
  weights.targets[1].shape = {2, 2};
  EXPECT_THAT(
      message_of<DataError>(
          [&] { load_parameters("best.pt", loaded.state_dicts[0].tensors, weights.targets); }),
      AllOf(HasSubstr("best.pt"), HasSubstr("1 missing: pos_embed"), HasSubstr("1 unexpected: proj.0.weight"),
            HasSubstr("proj.0.bias is (4), expected (2, 2)")));
  for (const auto& values : weights.memory) EXPECT_EQ(values, std::vector<float>(values.size(), -99.0F));
}

TEST(LoadParameters, RefusesWholeNumbersAndANameTwice) {
  LoadedCheckpoint loaded = read_training_checkpoint(golden("state_dict.pt"));
  std::vector<NamedTensor>& tensors = loaded.state_dicts[0].tensors;
  SmallMemory weights;
  tensors[3].tensor.dtype = DType::kI32;
  EXPECT_THAT(
      message_of<DataError>([&] { load_parameters("x.pt", loaded.state_dicts[0].tensors, weights.targets); }),
      HasSubstr("proj.1.bias is int32"));
  tensors[3].name = "proj.1.weight";
  EXPECT_THAT(
      message_of<DataError>([&] { load_parameters("x.pt", loaded.state_dicts[0].tensors, weights.targets); }),
      HasSubstr("proj.1.weight twice"));
}

TEST(CheckFinite, NamesTheParameterAndThePlace) {
  const std::vector<float> ones(6, 1.0F);
  const std::vector<float> numbers{1, 2, 3, std::numeric_limits<float>::infinity(), 5, std::nanf("")};
  const std::vector<NamedTensor> fine{{"first", borrow_tensor(ones, {6})}};
  const std::vector<NamedTensor> bad{{"first", borrow_tensor(ones, {6})},
                                     {"second", borrow_tensor(numbers, {3, 2})}};
  EXPECT_NO_THROW(check_finite("best.pt", fine));
  EXPECT_THAT(message_of<DataError>([&] { check_finite("best.pt", bad); }),
              HasSubstr("best.pt: second is inf at (1, 1) (2 of its 6 numbers"));
}

TEST(TrainingCheckpoint, WhatItWouldHaveToExecuteStaysInert) {
  for (const auto& [name, inert] :
       {std::pair("hostile.pt", "hook: posix.system"), std::pair("objects.pt", "args: argparse.Namespace")}) {
    const LoadedCheckpoint loaded = read_training_checkpoint(golden(name));
    EXPECT_THAT(loaded.not_loaded, Contains(inert));
    SmallMemory weights;
    load_parameters(name, loaded.state_dicts.at(0).tensors, weights.targets);
    weights.expect_pattern(0);
  }
  EXPECT_FALSE(std::filesystem::exists("voca_was_here"));
  EXPECT_EQ(read_training_checkpoint(golden("objects.pt")).config["lr"], 1.0);
}

/// `root` written as a .pt and read as a checkpoint.
LoadedCheckpoint read_back(const TemporaryFolder& folder, const Value& root) {
  write_pt(folder / "made.pt", root);
  return read_training_checkpoint(folder / "made.pt");
}

Value small_state_dict() {
  static const std::vector<float> ones(4, 1.0F);
  Dict dict;
  dict.add("weight", borrow_tensor(ones, {4}));
  return dict;
}

Value with(const std::string& key, Value value) {
  Dict root;
  root.add("model_state_dict", small_state_dict());
  root.add(key, std::move(value));
  return root;
}

TEST(TrainingCheckpoint, NothingButANewerFormatIsWrongWithADictionary) {
  const TemporaryFolder folder;
  EXPECT_THAT(read_back(folder, Dict{}).state_dicts, IsEmpty());
  EXPECT_THAT(read_back(folder, List{}).state_dicts, IsEmpty());
  for (const auto& [key, value] :
       {std::pair("epoch", Value(1.5)), std::pair("val_auc", Value("high")),
        std::pair("config", Value(List{})), std::pair("engine", Value("deepspeed"))})
    EXPECT_EQ(read_back(folder, with(key, value)).state_dicts.size(), 1U) << key;
  Dict engine;
  engine.add("format_version", 2);
  EXPECT_THAT(message_of<DataError>([&] { (void)read_back(folder, with("engine", engine)); }),
              AllOf(HasSubstr("made.pt"), HasSubstr("format 2, this program knows up to 1")));
}

TEST(TrainingCheckpoint, FindsDictsOfTensorsButNotAnOptimizers) {
  const TemporaryFolder folder;
  Dict optimizer;
  optimizer.add("state", with("exp_avg", small_state_dict()));
  optimizer.add("param_groups", List{});
  Dict nested;
  nested.add("ema", small_state_dict());
  Dict root;
  root.add("net", small_state_dict());
  root.add("optimizer", optimizer);
  root.add("averages", nested);
  std::vector<std::string> keys;
  for (const StateDict& dict : read_back(folder, root).state_dicts) keys.push_back(dict.key);
  EXPECT_THAT(keys, ElementsAre("net", "averages.ema"));
}

TEST(TrainingCheckpoint, FindsOptionsWhereScriptsKeepThem) {
  const TemporaryFolder folder;
  Dict options;
  options.add("num_heads", 4);
  for (const char* key : {"config", "args", "hparams", "hyper_parameters"})
    EXPECT_EQ(read_back(folder, with(key, options)).config["num_heads"], 4) << key;
  EXPECT_EQ(read_back(folder, with("num_heads", "4")).config["num_heads"], "4");
}

}  // namespace
}  // namespace voca::engine
