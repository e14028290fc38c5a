#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "data/packed/dataset.h"
#include "data/packed/pack.h"
#include "data/synth.h"
#include "engine/base/atomic_file.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "engine/core/cuda_device.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::golden;
using data::testing::read_bytes;
using data::testing::Scratch;
using data::testing::write_bytes;
using data::testing::write_video;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class Program : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    data::synthesize_features({.out = here() / "tree",
                               .videos = 40,
                               .frames_min = 10,
                               .frames_max = 20,
                               .visual_dim = 24,
                               .audio_dim = 16,
                               .progress = {}});
    data::PackOptions pack;
    pack.features_root = here() / "tree";
    pack.out = here() / "packed.h5";
    static_cast<void>(data::pack_features(pack));
    const Outcome trained = run(small_training("packed.h5") + Words{"--epochs=1", "--save_path=a.pt",
                                                                    "--save_last=b.pt", "--run_dir=run"},
                                here());
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
  }
  static void TearDownTestSuite() {
    delete scratch_;
    scratch_ = nullptr;
  }
  static fs::path here() { return scratch_->path(); }
  // Expects one line that begins with `begins` and holds `holds`, and the exit code.
  static void expect_refused(const Words& words, int exit_code, const std::string& holds,
                             const std::map<std::string, std::string>& environment = {}) {
    const Outcome outcome = run(words, here(), environment);
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.err;
    EXPECT_THAT(outcome.message(), StartsWith("voca-engine: "));
    EXPECT_THAT(outcome.message(), HasSubstr(holds));
    EXPECT_EQ(outcome.out, "");
  }

 private:
  static Scratch* scratch_;
};
Scratch* Program::scratch_ = nullptr;

TEST_F(Program, EveryCommandHasHelp) {
  for (const char* command :
       {"synth", "pack", "inspect", "train", "eval", "predict", "plan", "launch", "doctor"}) {
    const Outcome outcome = run({command, "--help"}, here());
    EXPECT_EQ(outcome.exit_code, 0) << command;
    EXPECT_THAT(outcome.out, HasSubstr("voca-engine " + std::string(command)));
    EXPECT_EQ(outcome.err, "");
  }
  EXPECT_THAT(run({"--help"}, here()).out, HasSubstr("usage: voca-engine <command>"));
  EXPECT_THAT(run({"--version"}, here()).out, StartsWith("voca-engine 0."));
}

TEST_F(Program, RefusesWhatItDoesNotKnow) {
  expect_refused({}, 64, "a command is needed");
  expect_refused({"trian"}, 64, "unknown command \"trian\", did you mean \"train\"?");
  expect_refused({"train"}, 64, "--features_root PATH is needed");
  expect_refused({"train", "--hiden=3"}, 64, "did you mean --hidden?");
  expect_refused({"eval", "--features_root=packed.h5"}, 64, "--checkpoint F.pt is needed");
  expect_refused({"inspect"}, 64, "needs FILE");
}

TEST_F(Program, RefusesNumbersOutOfRangeByName) {
  const auto synth = [](const char* option, const std::string& message) {
    expect_refused({"synth", "--out=made", option}, 64, message);
  };
  synth("--videos=0", "--videos: is 0, must be from 1 to 10000000");
  synth("--videos=99999999999", "--videos: is 99999999999, must be from 1 to 10000000");
  synth("--frames_min=0", "--frames_min: is 0, must be from 1 to 16777216");
  synth("--fake_ratio=1.01", "--fake_ratio: is 1.01, must be from 0 to 1");
  synth("--fake_ratio=nan", "--fake_ratio: is \"nan\", expected a number");
  synth("--visual_dim=0", "--visual_dim: is 0, must be from 1 to 1048576");
  synth("--audio_dim=-1", "--audio_dim: is -1, must be from 1 to 1048576");
  synth("--dtype=bf16", "--dtype: \"bf16\" is not one of fp16, fp32");
  EXPECT_FALSE(fs::exists(here() / "made"));
  expect_refused({"plan", "--visual_dim=0"}, 64, "--visual_dim: is 0, must be from 1 to 1048576");
  expect_refused({"plan", "--gpu_memory=5000"}, 64, "--gpu_memory: is 5000, must be from 0 to 4096 GiB");
  expect_refused({"eval", "--split=all"}, 64, "--split: \"all\" is not one of train, val, test");
}

TEST_F(Program, RefusesWhatIsNotBuiltWithThatReason) {
  const Words train = small_training("packed.h5") + Words{"--run_dir=refused"};
  expect_refused(train + Words{"--device=cuda:99"}, 64, "--device cuda:99: ");
  expect_refused(train + Words{"--precision=bf16"}, 64, "--precision bf16: ");
  expect_refused(train + Words{"--precision=tf32"}, 64, "--precision tf32: ");
  expect_refused(train + Words{"--device=cpu", "--data_residency=gpu"}, 64,
                 "--data_residency gpu: the run is on a CPU");
  EXPECT_FALSE(fs::exists(here() / "refused"));
}

struct Wrong {
  const char* option;
  const char* message;
};

class WrongOption : public Program, public ::testing::WithParamInterface<Wrong> {};

TEST_P(WrongOption, IsNamedBeforeAnythingIsWritten) {
  expect_refused(small_training("packed.h5") + Words{"--run_dir=wrong", GetParam().option}, 64,
                 GetParam().message);
  EXPECT_FALSE(fs::exists(here() / "wrong/checkpoints"));
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongOption,
    ::testing::Values(
        Wrong{"--hidden=17", "--hidden 17"},
        Wrong{"--num_heads=3", "--hidden 16 is not divisible by --num_heads 3"},
        Wrong{"--num_heads=0", "--num_heads: is 0, must be at least 1"},
        Wrong{"--num_layers=0", "--num_layers: is 0, must be from 1 to 64"},
        Wrong{"--num_layers=65", "--num_layers: is 65, must be from 1 to 64"},
        Wrong{"--seq_len=0", "--seq_len: is 0, must be at least 1"},
        Wrong{"--batch_size=0", "--batch_size: is 0, must be at least 1"},
        Wrong{"--epochs=0", "--epochs: is 0, must be at least 1"},
        Wrong{"--dropout=1", "--dropout: is 1, must be at least 0 and below 1"},
        Wrong{"--label_smoothing=1", "--label_smoothing: is 1, must be at least 0 and below 1"},
        Wrong{"--lr=0", "--lr: is 0, must be above 0"}, Wrong{"--lr=-1", "--lr: is -1, must be above 0"},
        Wrong{"--weight_decay=-1", "--weight_decay: is -1, must be at least 0"},
        Wrong{"--warmup_epochs=-1", "--warmup_epochs: is -1, must be at least 0"},
        Wrong{"--schedule=cosine", "--schedule: \"cosine\" is not one of epoch, step"},
        Wrong{"--max_grad_norm=-1", "--max_grad_norm: is -1, must be at least 0"},
        Wrong{"--grad_accum=0", "--grad_accum: is 0, must be at least 1"},
        Wrong{"--grad_dtype=fp16", "--grad_dtype: \"fp16\" is not one of auto, fp32, compute"},
        Wrong{"--pos_weight=0", "--pos_weight: is 0, must be above 0"},
        Wrong{"--pos_weight=x", "--pos_weight: is \"x\", expected a number or auto"},
        Wrong{"--contrastive_weight=-1", "--contrastive_weight: is -1, must be at least 0"},
        Wrong{"--contrastive_scope=all", "--contrastive_scope: \"all\" is not one of local, global"},
        Wrong{"--cross_attention=v2a", "--cross_attention: \"v2a\" is not one of a2v, bidirectional"},
        Wrong{"--positional_encoding=rope",
              "--positional_encoding: \"rope\" is not one of none, sinusoidal, learned"},
        Wrong{"--select_by=f1", "--select_by: \"f1\" is not one of auc, ap, loss, acc"},
        Wrong{"--eval_every=0", "--eval_every: is 0, must be at least 1"},
        Wrong{"--keep=0", "--keep: is 0, must be from 1 to 1048576"},
        Wrong{"--checkpoint_every=often",
              "--checkpoint_every: is \"often\", expected a number of epochs or steps"},
        Wrong{"--log_every=-1", "--log_every: is -1, must be at least 0"},
        Wrong{"--augment_prob=2", "--augment_prob: is 2, must be from 0 to 1"},
        Wrong{"--max_shift=-1", "--max_shift: is -1, must be from 0 to 16777216"},
        Wrong{"--num_workers=-1", "--num_workers: is -1, must be from 0 to 1024"},
        Wrong{"--max_bad_samples=-1", "--max_bad_samples: is -1, must be at least 0"},
        Wrong{"--max_bad_steps=0", "--max_bad_steps: is 0, must be at least 1"},
        Wrong{"--threads=-1", "--threads: is -1, must be from 0 to 1024"},
        Wrong{"--precision=fp8", "--precision: \"fp8\" is not one of auto, fp32, tf32, bf16, fp16"},
        Wrong{"--device=tpu", "--device: is \"tpu\", expected auto, cpu, cuda or cuda:N"},
        Wrong{"--device=cuda:", "--device: is \"cuda:\", expected auto"},
        Wrong{"--device=cuda:1x", "--device: is \"cuda:1x\", expected auto"},
        Wrong{"--gemm_autotune=maybe", "--gemm_autotune: \"maybe\" is not one of on, off"},
        Wrong{"--data_residency=ram", "--data_residency: \"ram\" is not one of auto, gpu, host, disk"},
        Wrong{"--num_classes=0", "--num_classes: is 0, must be from 1 to 255: labels are bytes"},
        Wrong{"--bucket_mb=0", "--bucket_mb: is 0, must be above 0 and at most 4096"},
        Wrong{"--comm_timeout=0.5", "--comm_timeout: is 0.5, must be from 1 to 10000000 seconds"},
        Wrong{"--comm_timeout=1e10", "--comm_timeout: is 10000000000, must be from 1 to 10000000 seconds"},
        Wrong{"--epochs=99999999999999999999",
              "--epochs: is 99999999999999999999, beyond the numbers that it can hold; must be at least 1"},
        Wrong{"--lr=1e-400", "--lr: is 1e-400, beyond the numbers that it can hold; must be above 0"},
        Wrong{"--lr=1e400", "--lr: is 1e400, beyond the numbers that it can hold; must be above 0"},
        Wrong{"--weight_decay=nan", "--weight_decay: is \"nan\", expected a number"},
        Wrong{
            "--threshold_by=fpr=1",
            "--threshold_by: is \"fpr=1\", expected balanced_acc, acc, f1_real, f1_fake, eer, or fpr=P with P above 0 and below 1, such as fpr=0.01"},
        Wrong{"--split_ratios=0.5,0.5,0.5", "--split_ratios: is \"0.5,0.5,0.5\", expected three shares"},
        Wrong{"--max_steps=-1", "--max_steps: is -1, must be at least 0"}),
    [](const auto& wrong) {
      std::string name;
      for (const char c : std::string(wrong.param.option)) name += std::isalnum(c) != 0 ? c : '_';
      return name;
    });

TEST_F(Program, NamesTheFileThatCannotBeRead) {
  engine::write_file_atomically(here() / "empty.h5", "");
  engine::write_file_atomically(here() / "text.h5", "not a dataset");
  fs::create_directories(here() / "no_tree");
  std::vector<std::byte> cut = read_bytes(here() / "packed.h5");
  cut.resize(cut.size() / 2);
  write_bytes(here() / "cut.h5", cut);
  expect_refused(small_training("nowhere") + Words{"--run_dir=wrong"}, 74, "--features_root nowhere");
  expect_refused(small_training("empty.h5") + Words{"--run_dir=wrong"}, 65, "empty.h5");
  expect_refused(small_training("text.h5") + Words{"--run_dir=wrong"}, 65, "text.h5");
  expect_refused(small_training("cut.h5") + Words{"--run_dir=wrong"}, 65, "cut.h5");
  expect_refused(small_training("a.pt") + Words{"--run_dir=wrong"}, 65, "a.pt");
  expect_refused(small_training("no_tree") + Words{"--run_dir=wrong"}, 65, "no_tree");
  expect_refused({"eval", "--checkpoint=nowhere.pt", "--features_root=packed.h5"}, 74, "nowhere.pt");
  expect_refused({"eval", "--checkpoint=packed.h5", "--features_root=packed.h5"}, 65, "packed.h5");
  expect_refused({"predict", "--checkpoint=a.pt,empty.h5", "--features_root=packed.h5"}, 65, "empty.h5");
  expect_refused({"inspect", "nowhere"}, 74, "nowhere");
  expect_refused({"inspect", "empty.h5"}, 65, "empty.h5");
  expect_refused({"inspect", "no_tree"}, 65, "no_tree");
  expect_refused(small_training("packed.h5") + Words{"--run_dir=wrong2", "--init_from=nowhere.pt"}, 74,
                 "nowhere.pt");
  expect_refused(small_training("packed.h5") + Words{"--run_dir=wrong3", "--resume=nowhere.resume"}, 74,
                 "nowhere.resume");
  expect_refused(small_training("packed.h5") + Words{"--config=nowhere.json"}, 74, "nowhere.json");
}

TEST_F(Program, AHostileCheckpointIsPrintedAndNeverRun) {
  const std::string hostile = (fs::path(VOCA_GOLDEN_DIR) / "checkpoint/hostile.pt").string();
  const Outcome inspected = run({"inspect", hostile}, here());
  EXPECT_EQ(inspected.exit_code, 0) << inspected.err;
  EXPECT_THAT(inspected.out, HasSubstr("not loaded, and nothing of it was run: hook: posix.system"));
  // Its weights are another network's.
  expect_refused({"eval", "--checkpoint=" + hostile, "--features_root=packed.h5"}, 65,
                 "hostile.pt: is another network");
  EXPECT_FALSE(fs::exists(here() / "voca_was_here"));
}

TEST_F(Program, ACheckpointOfOtherWidthsIsRefusedNamingBoth) {
  data::synthesize_features({.out = here() / "wide",
                             .videos = 10,
                             .frames_min = 10,
                             .frames_max = 12,
                             .visual_dim = 32,
                             .audio_dim = 16,
                             .progress = {}});
  expect_refused({"predict", "--checkpoint=a.pt", "--features_root=wide"}, 65, "width 24 and audio of 16");
  expect_refused(small_training("wide") + Words{"--run_dir=wrong", "--init_from=a.pt", "--no_val"}, 65,
                 "it has visual_dim 24; asked for 32");
}

TEST_F(Program, EmptySplitsAndUnfitLabelsAreRefusedBeforeTheFirstStep) {
  const auto pack = [&](const std::string& name, const std::string& ratios) {
    const Outcome outcome =
        run({"pack", "--features_root=tree", "--out=" + name, "--split_ratios=" + ratios, "--quiet"}, here());
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  };
  pack("no_val.h5", "0.8,0,0.2");
  pack("no_train.h5", "0,0.5,0.5");
  pack("all.h5", "1,0,0");
  expect_refused(small_training("no_val.h5") + Words{"--run_dir=wrong"}, 64, "validation split");
  expect_refused(small_training("no_train.h5") + Words{"--run_dir=wrong"}, 64, "training split is empty");
  expect_refused({"eval", "--checkpoint=a.pt", "--features_root=all.h5"}, 65, "the test split is empty");
  const Outcome trained =
      run(small_training("all.h5") + Words{"--run_dir=all", "--no_val", "--epochs=1", "--json"}, here());
  EXPECT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_TRUE(trained.json()["test"].is_null());
}

TEST_F(Program, PackNamesQuarantinedVideosAndStrictLeavesNoFile) {
  const fs::path root = here() / "bad";
  for (int i = 0; i < 6; ++i) {
    write_video(root / "real" / ("good" + std::to_string(i)), 12, 12, i);
    write_video(root / "fake" / ("good" + std::to_string(i)), 12, 12, -i);
  }
  write_video(root / "real/cut", 12, 12, 0);
  std::vector<std::byte> bytes = read_bytes(root / "real/cut/audio_embeddings.npz");
  bytes.resize(bytes.size() / 2);
  write_bytes(root / "real/cut/audio_embeddings.npz", bytes);
  write_video(root / "fake/halved", 12, 12, 0);
  fs::remove(root / "fake/halved/visual_embeddings.npz");

  const Outcome packed = run({"pack", "--features_root=bad", "--out=bad.h5"}, here());
  EXPECT_EQ(packed.exit_code, 0) << packed.err;
  EXPECT_THAT(packed.out, HasSubstr("packed 12 of 14 videos"));
  EXPECT_THAT(packed.out, HasSubstr("real/cut"));
  EXPECT_THAT(packed.out, HasSubstr("fake/halved"));
  const auto report =
      nlohmann::ordered_json::parse(engine::read_text_file(here() / "bad.h5.report.json", 1 << 20));
  EXPECT_EQ(report["bad"].size(), 2U);
  expect_refused({"pack", "--features_root=bad", "--out=strict.h5", "--strict"}, 65, "fake/halved");
  for (const auto& entry : fs::directory_iterator(here()))
    EXPECT_EQ(entry.path().filename().string().find("strict.h5"), std::string::npos) << entry.path();
}

TEST_F(Program, PredictWritesEveryVideoInTheOrderOfTheData) {
  const Outcome outcome =
      run({"predict", "--checkpoint=a.pt", "--features_root=packed.h5", "--out=preds.csv"}, here());
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  std::ifstream csv(here() / "preds.csv");
  std::string line;
  std::getline(csv, line);
  EXPECT_EQ(line, "id,label,split,logit,prob_real");
  const data::Dataset dataset(here() / "packed.h5");
  std::int64_t sample = 0;
  for (; std::getline(csv, line); ++sample) {
    std::istringstream fields(line);
    std::array<std::string, 5> field;
    for (std::string& text : field) std::getline(fields, text, ',');
    ASSERT_LT(sample, dataset.size());
    EXPECT_EQ(field[0], dataset.id(sample));
    EXPECT_EQ(field[1], std::to_string(dataset.label(sample)));
    EXPECT_EQ(field[2], data::name_of(dataset.split(sample)));
    EXPECT_NEAR(std::stod(field[4]), 1 / (1 + std::exp(-std::stod(field[3]))), 1e-8);
  }
  EXPECT_EQ(sample, dataset.size());
  // A checkpoint averaged with itself says what it says alone; stdout gets the same table.
  const Outcome twice = run({"predict", "--checkpoint=a.pt,a.pt", "--features_root=packed.h5"}, here());
  EXPECT_EQ(twice.out, engine::read_text_file(here() / "preds.csv", 1 << 20));
  const Outcome test =
      run({"predict", "--checkpoint=a.pt", "--features_root=packed.h5", "--split=test"}, here());
  EXPECT_EQ(std::count(test.out.begin(), test.out.end(), '\n'),
            1 + static_cast<std::int64_t>(dataset.samples_of(data::Split::kTest).size()));
  expect_refused({"predict", "--checkpoint=a.pt", "--features_root=packed.h5", "--out=no/such/folder.csv"},
                 74, "no/such/folder.csv");
}

TEST_F(Program, PredictAveragesTheLogitsOfSeveralCheckpoints) {
  // The second sees other frames of a video than the first.
  ASSERT_EQ(run(small_training("packed.h5") +
                    Words{"--epochs=1", "--seq_len=6", "--seed=5", "--save_path=short.pt", "--run_dir=short"},
                here())
                .exit_code,
            0);
  const auto logits = [&](const std::string& checkpoints) {
    const Outcome outcome =
        run({"predict", "--checkpoint=" + checkpoints, "--features_root=packed.h5"}, here());
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    std::vector<double> values;
    std::istringstream csv(outcome.out);
    std::string line;
    std::getline(csv, line);
    while (std::getline(csv, line)) {
      std::istringstream fields(line);
      std::string field;
      for (int i = 0; i < 4; ++i) std::getline(fields, field, ',');
      values.push_back(std::stod(field));
    }
    return values;
  };
  const std::vector<double> a = logits("a.pt");
  const std::vector<double> b = logits("b.pt");
  const std::vector<double> other = logits("short.pt");
  const std::vector<double> mean = logits("a.pt,short.pt,b.pt");
  ASSERT_EQ(mean.size(), a.size());
  for (std::size_t i = 0; i < mean.size(); ++i)
    EXPECT_NEAR(mean[i], (a[i] + other[i] + b[i]) / 3, 1e-7 * (1 + std::abs(mean[i])));
  EXPECT_NE(a, other);
}

TEST_F(Program, AnOutputThatCannotBeWrittenIsNotSilent) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const std::string command = "cd '" + here().string() +
                              "' && '" VOCA_PROGRAM
                              "' predict --checkpoint=a.pt --features_root=packed.h5 > /dev/full 2>/dev/null";
  const int status = std::system(command.c_str());
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 74);
}

TEST_F(Program, EvalHasTheKeysOfItsContract) {
  const Outcome outcome =
      run({"eval", "--checkpoint=a.pt", "--features_root=packed.h5", "--split=val", "--json"}, here());
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::ordered_json json = outcome.json();
  for (const char* key : {"split", "n", "n_real", "n_fake", "loss", "acc", "balanced_acc", "auc", "ap_real",
                          "ap_fake", "eer", "f1_real", "f1_fake", "threshold", "confusion"})
    EXPECT_TRUE(json.contains(key)) << key;
  EXPECT_EQ(json["split"], "val");
  EXPECT_EQ(json["threshold_from"], "fitted on val");
}

TEST_F(Program, EvalOnAnotherSplitWarns) {
  ASSERT_EQ(
      run({"pack", "--features_root=tree", "--out=other.h5", "--split_seed=5", "--quiet"}, here()).exit_code,
      0);
  const Outcome other = run({"eval", "--checkpoint=a.pt", "--features_root=other.h5"}, here());
  EXPECT_EQ(other.exit_code, 0) << other.err;
  EXPECT_THAT(other.err, HasSubstr("the split is not the one"));
  const Outcome same = run({"eval", "--checkpoint=a.pt", "--features_root=packed.h5"}, here());
  const engine::CudaAvailability cuda = engine::cuda_availability();
  const bool says_why = engine::built_with_cuda() && cuda.devices == 0;
  EXPECT_EQ(same.err, says_why ? "computing on the CPU: " + cuda.reason + "\n" : "");
}

TEST_F(Program, InspectTellsEveryKindOfFileApart) {
  const std::map<std::string, std::string> kinds{
      {"packed.h5", "packed dataset"},
      {"a.pt", "PyTorch checkpoint"},
      {"run", "run folder"},
      {"run/checkpoints/" +
           [] {
             for (const auto& entry : fs::directory_iterator(here() / "run/checkpoints"))
               if (entry.path().extension() == ".resume") return entry.path().filename().string();
             return std::string();
           }(),
       "resume state"}};
  for (const auto& [file, kind] : kinds) {
    const Outcome text = run({"inspect", file, "--verify"}, here());
    EXPECT_EQ(text.exit_code, 0) << text.err;
    EXPECT_THAT(text.out, HasSubstr(kind)) << file;
    const Outcome json = run({"inspect", file, "--json"}, here());
    EXPECT_EQ(json.json()["kind"], kind) << json.out;
  }
}

TEST_F(Program, SafetensorsPredictWhatTheirCheckpointDoes) {
  const auto predictions = [](const std::string& checkpoint) {
    return run({"predict", "--checkpoint=" + checkpoint, "--features_root=packed.h5"}, here());
  };
  const Outcome exported = run({"inspect", "a.pt", "--export=a.safetensors"}, here());
  ASSERT_EQ(exported.exit_code, 0) << exported.err;
  const Outcome of_pt = predictions("a.pt");
  ASSERT_EQ(of_pt.exit_code, 0) << of_pt.err;
  EXPECT_EQ(predictions("a.safetensors").out, of_pt.out);
  EXPECT_THAT(run({"inspect", "a.safetensors", "--verify"}, here()).out, HasSubstr("verified: every byte"));
  expect_refused({"inspect", "a.pt", "--export=a.bin"}, 64, "--export a.bin");
  const Outcome trained =
      run(small_training("packed.h5") + Words{"--epochs=1", "--run_dir=safe", "--save_path=best.safetensors"},
          here());
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_EQ(predictions("best.safetensors").out, of_pt.out);
}

TEST_F(Program, AFlippedBitOfACheckpointIsFound) {
  std::vector<std::byte> bytes = read_bytes(here() / "a.pt");
  for (std::size_t at = 7; at < bytes.size(); at += bytes.size() / 23) {
    bytes[at] ^= std::byte{16};
    write_bytes(here() / "flipped.pt", bytes);
    bytes[at] ^= std::byte{16};
    EXPECT_EQ(run({"inspect", "flipped.pt", "--verify"}, here()).exit_code, 65) << "byte " << at;
    EXPECT_EQ(run({"eval", "--checkpoint=flipped.pt", "--features_root=packed.h5"}, here()).exit_code, 65)
        << "byte " << at;
  }
}

std::size_t sum_of_memory(const nlohmann::ordered_json& plan) {
  std::size_t sum = 0;
  for (const auto& line : plan["memory"]) sum += line["bytes"].get<std::size_t>();
  return sum;
}

TEST_F(Program, PlanKnowsAGpuThatIsNotHere) {
  if (!engine::built_with_cuda()) GTEST_SKIP() << "built without CUDA";
  const Words words{"plan", "--device=cuda", "--hidden=64", "--num_heads=2", "--seq_len=32", "--json"};
  const Outcome of_8 = run(words + Words{"--gpu_memory=8"}, here());
  ASSERT_EQ(of_8.exit_code, 0) << of_8.err;
  const nlohmann::ordered_json plan = of_8.json();
  EXPECT_EQ(sum_of_memory(plan), plan["memory_bytes"].get<std::size_t>());
  EXPECT_THAT(plan["memory"].dump(), HasSubstr("GEMM workspace"));
  EXPECT_EQ(plan["free_bytes"].get<std::size_t>(), std::size_t{8} << 30);
  EXPECT_GT(plan["largest_batch_size"].get<std::int64_t>(), 0);
  EXPECT_THAT(plan["memory"].dump(), Not(HasSubstr("gradient sums")));
  const Words accumulating = words + Words{"--gpu_memory=8", "--grad_accum=2"};
  EXPECT_THAT(run(accumulating, here()).json()["memory"].dump(), HasSubstr("gradient sums"));
  EXPECT_THAT(run(accumulating + Words{"--grad_dtype=compute"}, here()).json()["memory"].dump(),
              Not(HasSubstr("gradient sums")));
  const Outcome of_16 = run(words + Words{"--gpu_memory=16"}, here());
  EXPECT_GT(of_16.json()["largest_batch_size"].get<std::int64_t>(),
            plan["largest_batch_size"].get<std::int64_t>());
  if (engine::cuda_availability().devices > 0) return;
  const Outcome unknown = run(words, here());
  ASSERT_EQ(unknown.exit_code, 0) << unknown.err;
  EXPECT_TRUE(unknown.json()["largest_batch_size"].is_null());
  EXPECT_TRUE(unknown.json()["floor_seconds_per_step"].is_null());
  EXPECT_THAT(run({"plan", "--device=cuda"}, here()).out, HasSubstr("n/a"));
}

TEST_F(Program, PlanAddsUpAndNamesTheLargestBatch) {
  const Words words{"plan",           "--features_root=packed.h5",
                    "--hidden=16",    "--num_heads=2",
                    "--num_layers=2", "--seq_len=12",
                    "--batch_size=8", "--device=cpu",
                    "--json"};
  const Outcome outcome = run(words, here());
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::ordered_json plan = outcome.json();
  EXPECT_EQ(sum_of_memory(plan), plan["memory_bytes"].get<std::size_t>());
  EXPECT_GT(plan["largest_batch_size"].get<std::int64_t>(), 8);
  EXPECT_GT(plan["floor_seconds_per_step"].get<double>(), 0);
  EXPECT_EQ(plan["steps_per_epoch"], 3);
  const nlohmann::ordered_json recomputed = run(words + Words{"--recompute"}, here()).json();
  EXPECT_LT(recomputed["memory_bytes"].get<std::size_t>(), plan["memory_bytes"].get<std::size_t>());
  EXPECT_GT(recomputed["flops_per_step"]["all"].get<double>(), plan["flops_per_step"]["all"].get<double>());
}

TEST_F(Program, DoctorFindsNothingBrokenHere) {
  const Outcome outcome = run({"doctor", "--json"}, here());
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  for (const char* what :
       {"build", "kernels", "cores", "memory", "disk", "limits", "backend", "ranks", "driver", "nccl"})
    EXPECT_TRUE(outcome.json()["findings"].contains(what)) << what;
}

TEST_F(Program, TheCpuKernelsAreThoseThatTheEnvironmentNames) {
  // Whatever a build has, it has the one that runs.
  const std::string kernels =
      run({"doctor", "--json"}, here()).json()["versions"]["kernels"].get<std::string>();
  const std::string name = kernels.substr(0, kernels.find(' '));
  const Outcome named = run({"doctor", "--json"}, here(), {{"VOCA_CPU_ARCH", name}});
  EXPECT_EQ(named.exit_code, 0) << named.err;
  EXPECT_EQ(named.json()["versions"]["kernels"], kernels);
  expect_refused({"doctor"}, 64, "VOCA_CPU_ARCH=i386: the CPU kernels of this program are for ",
                 {{"VOCA_CPU_ARCH", "i386"}});
}

TEST_F(Program, SynthRefusesWhatIsOutOfRangeAndAFolderInUse) {
  expect_refused({"synth"}, 64, "--out DIR is needed");
  expect_refused({"synth", "--out=s", "--videos=0"}, 64, "--videos");
  expect_refused({"synth", "--out=s", "--frames_min=9", "--frames_max=3"}, 64, "--frames_m");
  expect_refused({"synth", "--out=s", "--fake_ratio=2"}, 64, "--fake_ratio");
  expect_refused({"synth", "--out=tree"}, 64, "--out tree: has ");
  EXPECT_FALSE(fs::exists(here() / "s"));
}

}  // namespace
}  // namespace voca::tools::testing
