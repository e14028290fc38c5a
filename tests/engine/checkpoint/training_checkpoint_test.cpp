#include "engine/checkpoint/training_checkpoint.h"

#include "checkpoint_support.h"

namespace voca::engine {
namespace {

using test::floats;
using test::golden;
using test::message_of;
using test::pattern;
using test::TemporaryFolder;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

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
    checkpoint.optimizer = AdamWState{2, 3e-4, 0.9, 0.999, 1e-8, 1e-4};
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
  SmallMemory exp_avg;
  SmallMemory exp_avg_sq;
  load_parameters("file", loaded.parameters, weights.targets);
  weights.expect_pattern(0);
  ASSERT_TRUE(loaded.optimizer);
  load_moments("file", *loaded.optimizer, exp_avg.targets, exp_avg_sq.targets);
  exp_avg.expect_pattern(10);
  exp_avg_sq.expect_pattern(20);
  const AdamWState& adamw = loaded.optimizer->adamw;
  EXPECT_EQ(adamw.step, 2);
  EXPECT_EQ(adamw.lr, 3e-4);
  EXPECT_EQ(adamw.beta1, 0.9);
  EXPECT_EQ(adamw.beta2, 0.999);
  EXPECT_EQ(adamw.eps, 1e-8);
  EXPECT_EQ(adamw.weight_decay, 1e-4);
  EXPECT_EQ(loaded.epoch, 7);
  EXPECT_EQ(loaded.val_acc, 0.875);
  EXPECT_EQ(loaded.val_auc, 0.9375);
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

TEST(TrainingCheckpoint, BeforeTheFirstStepHasNoMoments) {
  const TemporaryFolder folder;
  SmallTraining training;
  training.checkpoint.optimizer->step = 0;
  for (auto& parameter : training.checkpoint.parameters) parameter.exp_avg = parameter.exp_avg_sq = {};
  training.checkpoint.val_acc.reset();
  training.checkpoint.val_auc.reset();
  write_training_checkpoint(folder / "a.pt", training.checkpoint);
  const LoadedCheckpoint loaded = read_training_checkpoint(folder / "a.pt");
  ASSERT_TRUE(loaded.optimizer);
  EXPECT_EQ(loaded.optimizer->adamw.step, 0);
  EXPECT_FALSE(loaded.val_acc);
  EXPECT_FALSE(loaded.val_auc);
  SmallMemory first;
  SmallMemory second;
  load_moments("file", *loaded.optimizer, first.targets, second.targets);
  for (const SmallMemory* moments : {&first, &second})
    for (const auto& values : moments->memory) EXPECT_EQ(values, std::vector<float>(values.size(), 0.0F));
}

TEST(TrainingCheckpoint, WithoutAnOptimizerHasNone) {
  const TemporaryFolder folder;
  SmallTraining training;
  training.checkpoint.optimizer.reset();
  write_training_checkpoint(folder / "a.pt", training.checkpoint);
  EXPECT_FALSE(read_training_checkpoint(folder / "a.pt").optimizer);
}

class StateDictFile : public testing::TestWithParam<const char*> {};

TEST_P(StateDictFile, LoadsStrictly) {
  const LoadedCheckpoint loaded = read_training_checkpoint(golden(GetParam()));
  SmallMemory weights;
  load_parameters(GetParam(), loaded.parameters, weights.targets);
  weights.expect_pattern(0);
  EXPECT_FALSE(loaded.optimizer);
}

INSTANTIATE_TEST_SUITE_P(EveryForm, StateDictFile,
                         testing::Values("state_dict.pt", "protocol_3.pt", "protocol_4.pt", "protocol_5.pt",
                                         "data_parallel.pt", "parameters.pt", "deflated.pt",
                                         "data_descriptor.pt", "zip64.pt", "big_endian.pt"),
                         [](const auto& instance) {
                           std::string name = instance.param;
                           return name.substr(0, name.find('.'));
                         });

TEST(TrainingCheckpoint, LoadsFromSafetensorsToo) {
  const TemporaryFolder folder;
  const LoadedCheckpoint loaded = read_training_checkpoint(golden("state_dict.pt"));
  write_safetensors(folder / "a.safetensors", loaded.parameters, {{"config", R"({"hidden": 48})"}});
  const LoadedCheckpoint again = read_training_checkpoint(folder / "a.safetensors");
  SmallMemory weights;
  load_parameters("a.safetensors", again.parameters, weights.targets);
  weights.expect_pattern(0);
  EXPECT_EQ(again.config["hidden"], 48);
}

TEST(LoadParameters, NamesEverythingThatDoesNotFitAndWritesNothing) {
  LoadedCheckpoint loaded = read_training_checkpoint(golden("state_dict.pt"));
  SmallMemory weights;
  weights.targets[0].name = "pos_embed";
  weights.targets[1].shape = {2, 2};
  EXPECT_THAT(
      message_of<DataError>([&] { load_parameters("best.pt", loaded.parameters, weights.targets); }),
      AllOf(HasSubstr("best.pt"), HasSubstr("1 missing: pos_embed"), HasSubstr("1 unexpected: proj.0.weight"),
            HasSubstr("proj.0.bias is (4), expected (2, 2)")));
  for (const auto& values : weights.memory) EXPECT_EQ(values, std::vector<float>(values.size(), -99.0F));
}

TEST(LoadParameters, RefusesWholeNumbersAndANameTwice) {
  LoadedCheckpoint loaded = read_training_checkpoint(golden("state_dict.pt"));
  SmallMemory weights;
  loaded.parameters[3].tensor.dtype = DType::kI32;
  EXPECT_THAT(message_of<DataError>([&] { load_parameters("x.pt", loaded.parameters, weights.targets); }),
              HasSubstr("proj.1.bias is int32"));
  loaded.parameters[3].name = "proj.1.weight";
  EXPECT_THAT(message_of<DataError>([&] { load_parameters("x.pt", loaded.parameters, weights.targets); }),
              HasSubstr("proj.1.weight twice"));
}

TEST(LoadMoments, RefusesMomentsOfOtherShapes) {
  LoadedCheckpoint loaded = read_training_checkpoint(golden("training.pt"));
  SmallMemory first;
  SmallMemory second;
  std::swap(loaded.optimizer->exp_avg_sq[0], loaded.optimizer->exp_avg_sq[1]);
  EXPECT_THAT(
      message_of<DataError>([&] { load_moments("x.pt", *loaded.optimizer, first.targets, second.targets); }),
      AllOf(HasSubstr("state[0]"), HasSubstr("(4)"), HasSubstr("(4, 3)"), HasSubstr("registration")));
  loaded.optimizer->exp_avg.pop_back();
  EXPECT_THAT(
      message_of<DataError>([&] { load_moments("x.pt", *loaded.optimizer, first.targets, second.targets); }),
      HasSubstr("5 parameters"));
  EXPECT_EQ(first.memory[0], std::vector<float>(12, -99.0F));
}

TEST(TrainingCheckpoint, RefusesWhatItWouldHaveToExecute) {
  EXPECT_THAT(message_of<DataError>([] { (void)read_training_checkpoint(golden("hostile.pt")); }),
              AllOf(HasSubstr("hostile.pt"), HasSubstr("hook: posix.system")));
  EXPECT_THAT(message_of<DataError>([] { (void)read_training_checkpoint(golden("objects.pt")); }),
              HasSubstr("args: argparse.Namespace"));
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

TEST(TrainingCheckpoint, NamesWhatIsWrongWithADictionary) {
  const TemporaryFolder folder;
  const auto refusal = [&](const Value& root) {
    return message_of<DataError>([&] { (void)read_back(folder, root); });
  };
  Dict empty;
  EXPECT_THAT(refusal(empty), AllOf(HasSubstr("made.pt"), HasSubstr("no model_state_dict")));
  EXPECT_THAT(refusal(List{}), HasSubstr("holds a list"));
  Dict nested;
  nested.add("model_state_dict", with("x", 1));
  EXPECT_THAT(refusal(nested), HasSubstr("holds a dict under model_state_dict"));
  EXPECT_THAT(refusal(with("epoch", 1.5)), HasSubstr("epoch is a float"));
  EXPECT_THAT(refusal(with("val_auc", "high")), HasSubstr("val_auc is a str"));
  EXPECT_THAT(refusal(with("config", List{})), HasSubstr("config is a list"));
  Dict engine;
  engine.add("format_version", 2);
  EXPECT_THAT(refusal(with("engine", engine)), HasSubstr("format 2, this program knows up to 1"));
}

TEST(TrainingCheckpoint, RefusesOptimizersThatAreNotThisAdamW) {
  const TemporaryFolder folder;
  const SmallTraining training;
  write_training_checkpoint(folder / "a.pt", training.checkpoint);
  const PtFile file = read_pt(folder / "a.pt");
  const Dict& optimizer = *file.value.if_dict()->find("optimizer_state_dict")->if_dict();
  const Dict& group = *optimizer.find("param_groups")->items()[0].if_dict();
  const auto refusal = [&](const std::string& key, const Value& value) {
    Dict changed_group;
    for (const auto& [name, old] : group.items) {
      if (*name.if_string() != key || !value.is_none())
        changed_group.items.emplace_back(name, *name.if_string() == key ? value : old);
    }
    Dict changed;
    changed.add("state", *optimizer.find("state"));
    changed.add("param_groups", List{{Value(changed_group)}});
    return message_of<DataError>([&] { (void)read_back(folder, with("optimizer_state_dict", changed)); });
  };
  EXPECT_THAT(refusal("betas", Value()), HasSubstr("no two betas"));
  EXPECT_THAT(refusal("eps", Value()), HasSubstr("no number eps"));
  EXPECT_THAT(refusal("amsgrad", true), HasSubstr("amsgrad=True"));
  EXPECT_THAT(refusal("params", List{{Value(0)}}), HasSubstr("moments of 6 of its 1 parameters"));
  EXPECT_THAT(refusal("params", List{{0, 1, 2, 3, 4, 9}}), HasSubstr("names a parameter"));
}

TEST(TrainingCheckpoint, StripsAPrefixOnlyWhereAllCarryIt) {
  const TemporaryFolder folder;
  const std::vector<float> ones(4, 1.0F);
  const auto names = [&](const std::vector<std::string>& given) {
    Dict dict;
    for (const std::string& name : given) dict.add(name, borrow_tensor(ones, {4}));
    std::vector<std::string> result;
    for (const auto& tensor : read_back(folder, dict).parameters) result.push_back(tensor.name);
    return result;
  };
  EXPECT_THAT(names({"module.a", "module.b"}), ElementsAre("a", "b"));
  EXPECT_THAT(names({"_orig_mod.module.a", "_orig_mod.module.b"}), ElementsAre("a", "b"));
  EXPECT_THAT(names({"module._orig_mod.a"}), ElementsAre("a"));
  EXPECT_THAT(names({"module.a", "b"}), ElementsAre("module.a", "b"));
}

}  // namespace
}  // namespace voca::engine
