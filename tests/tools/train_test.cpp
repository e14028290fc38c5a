#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "data/batches/batch_source.h"
#include "data/packed/dataset.h"
#include "engine/checkpoint/torch/training_checkpoint.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"
#include "tools/train_files.h"

// The program as people use it, a process of its own.

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::testing::read_bytes;
using data::testing::Scratch;
using data::testing::write_bytes;
using ::testing::HasSubstr;

class Train : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    make_small_tree(*scratch_ / "tree", 60);
    pack_small_tree(*scratch_ / "tree", *scratch_ / "packed.h5");
  }
  static void TearDownTestSuite() {
    delete scratch_;
    scratch_ = nullptr;
  }
  static fs::path packed() { return *scratch_ / "packed.h5"; }
  static fs::path tree() { return *scratch_ / "tree"; }
  // A fresh folder to run in.
  [[nodiscard]] fs::path folder(const std::string& name) const {
    const fs::path path = here_ / name;
    fs::create_directories(path);
    return path;
  }
  // Masters and moments of every parameter, one after another.
  static std::vector<float> numbers_of(const fs::path& checkpoint) {
    const engine::PtFile file = engine::read_pt(checkpoint);
    std::vector<float> numbers;
    const auto append = [&](const engine::Value& value) {
      const engine::TensorValue& tensor = *value.if_tensor();
      std::vector<float> elements(static_cast<std::size_t>(tensor.elements()));
      tensor.copy_to(std::span<float>(elements));
      numbers.insert(numbers.end(), elements.begin(), elements.end());
    };
    for (const auto& [name, tensor] : file.value.find("model_state_dict")->entries()) append(tensor);
    for (const auto& [index, state] : file.value.find("optimizer_state_dict")->find("state")->entries()) {
      for (const char* moment : {"exp_avg", "exp_avg_sq"}) append(*state.find(moment));
    }
    return numbers;
  }
  static bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && !a.empty() &&
           std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }

 private:
  static Scratch* scratch_;
  Scratch here_;
};
Scratch* Train::scratch_ = nullptr;

TEST_F(Train, LeavesCheckpointRecordsAndAResult) {
  const fs::path here = folder("run");
  const Outcome outcome =
      run(small_training(packed()) + Words{"--save_path=best.pt", "--save_last=last.pt", "--json"}, here);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::ordered_json result = outcome.json();
  EXPECT_EQ(result["epochs"], 4);
  EXPECT_EQ(result["steps"], 16);
  EXPECT_EQ(result["checkpoint"], "best.pt");
  EXPECT_EQ(result["test"]["n"], 12);
  EXPECT_EQ(result["test"]["split"], "test");
  EXPECT_TRUE(fs::exists(here / "best.run/config.json"));

  const engine::LoadedCheckpoint best = engine::read_training_checkpoint(here / "best.pt");
  EXPECT_EQ(best.config["hidden"], 16);
  EXPECT_EQ(best.config["use_contrastive"], true);
  EXPECT_EQ(best.engine["split_hash"], data::Dataset(packed()).split_hash());
  EXPECT_TRUE(best.engine["threshold"].is_number());
  EXPECT_NE(engine::read_pt(here / "best.pt").value.find("val_auc")->if_double(), nullptr);
  EXPECT_EQ(engine::read_training_checkpoint(here / "last.pt").engine["step"], 16);

  std::map<std::string, int> kinds;
  for (const auto& line : metrics_of(here / "best.run")) ++kinds[line["kind"]];
  EXPECT_EQ(kinds, (std::map<std::string, int>{{"epoch", 4}, {"step", 16}, {"test", 1}}));
}

TEST_F(Train, WhatEvalMeasuresIsWhatTrainingSaid) {
  const fs::path here = folder("run");
  const Outcome trained = run(small_training(packed()) + Words{"--save_path=best.pt", "--json"}, here);
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const Outcome evaluated = run(
      {"eval", "--checkpoint=best.pt", "--features_root=" + packed().string(), "--batch_size=8", "--json"},
      here);
  ASSERT_EQ(evaluated.exit_code, 0) << evaluated.err;
  EXPECT_EQ(evaluated.json(), trained.json()["test"]);
}

TEST_F(Train, TheVectorsOfTheProcessorChangeNoBit) {
  // Widths that leave every kind of remainder in vectors of 4, 8 and 16 numbers.
  for (const char* hidden : {"6", "12", "36", "44", "68"}) {
    const Words options{"train",          "--features_root=" + packed().string(),
                        "--num_layers=1", "--hidden=" + std::string(hidden),
                        "--num_heads=1",  "--seq_len=7",
                        "--epochs=3",     "--batch_size=5",
                        "--no_val",       "--use_contrastive",
                        "--quiet",        "--save_last=last.pt",
                        "--run_dir=run"};
    std::map<std::string, std::vector<std::byte>> weights;
    std::map<std::string, std::vector<nlohmann::ordered_json>> records;
    for (const char* arch : {"x86-64-v3", "x86-64-v4"}) {
      const fs::path here = folder(std::string(hidden) + arch);
      const Outcome outcome = run(options, here, {{"VOCA_CPU_ARCH", arch}});
      if (outcome.exit_code == 64) GTEST_SKIP() << outcome.err;
      ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
      ASSERT_EQ(run({"inspect", "last.pt", "--export", "last.safetensors"}, here).exit_code, 0);
      // Behind the header, which names the kernels.
      std::vector<std::byte> bytes = read_bytes(here / "last.safetensors");
      std::uint64_t header = 0;
      std::memcpy(&header, bytes.data(), sizeof header);
      weights[arch].assign(bytes.begin() + static_cast<std::ptrdiff_t>(8 + header), bytes.end());
      records[arch] = metrics_of(here / "run");
    }
    EXPECT_EQ(records["x86-64-v3"], records["x86-64-v4"]) << hidden;
    EXPECT_TRUE(weights["x86-64-v3"] == weights["x86-64-v4"]) << hidden;
  }
}

/// The name of the newest state in a run folder; empty where there is none.
std::string newest_state(const fs::path& run) {
  std::string newest;
  std::error_code error;
  for (fs::directory_iterator entry(run / "checkpoints", error), end; !error && entry != end;
       entry.increment(error))
    if (entry->path().extension() == ".resume") newest = std::max(newest, entry->path().filename().string());
  return newest;
}

TEST_F(Train, KilledAnywhereItResumesToTheSameBits) {
  const Words options = small_training(packed()) + Words{"--epochs=20",
                                                         "--run_dir=run",
                                                         "--save_path=best.pt",
                                                         "--save_last=last.pt",
                                                         "--checkpoint_every=3steps",
                                                         "--resume=auto",
                                                         "--quiet"};
  const fs::path whole = folder("whole");
  ASSERT_EQ(run(options, whole).exit_code, 0);

  const fs::path broken = folder("broken");
  std::mt19937 random(7);
  int kills = 0;
  for (int attempt = 0; attempt < 200; ++attempt) {
    Process process(options, broken);
    // Killed some way into the work, but not before it is further than the one before: so it ends.
    const std::string before = newest_state(broken / "run");
    while (process.running() && newest_state(broken / "run") == before)
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 6000));
    if (process.running()) {
      process.signal(SIGKILL);
      ++kills;
    }
    const Outcome outcome = process.wait();
    if (outcome.exit_code == -SIGKILL) continue;
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    break;
  }
  EXPECT_GE(kills, 3);
  EXPECT_EQ(read_bytes(broken / "last.pt"), read_bytes(whole / "last.pt"));
  EXPECT_EQ(read_bytes(broken / "best.pt"), read_bytes(whole / "best.pt"));
  EXPECT_EQ(metrics_of(broken / "run"), metrics_of(whole / "run"));
}

TEST_F(Train, StoppedByASignalItSavesAndContinues) {
  const Words options = small_training(packed()) + Words{"--epochs=40",
                                                         "--run_dir=run",
                                                         "--save_path=best.pt",
                                                         "--save_last=last.pt",
                                                         "--resume=auto",
                                                         "--checkpoint_every=0",
                                                         "--quiet"};
  const fs::path whole = folder("whole");
  ASSERT_EQ(run(options, whole).exit_code, 0);
  const fs::path stopped = folder("stopped");
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) {
    Process process(options, stopped);
    // A line that is being written may show in part.
    const auto records = [&] {
      const fs::path file = stopped / "run/metrics.jsonl";
      return fs::exists(file) ? std::ranges::count(read_text(file), '\n') : 0;
    };
    const std::ptrdiff_t before = records();
    while (process.running() && records() < before + 6)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_TRUE(process.running());
    process.signal(number);
    const Outcome outcome = process.wait();
    EXPECT_EQ(outcome.exit_code, 75) << outcome.err;
    EXPECT_THAT(outcome.message(), HasSubstr("continue with --resume auto"));
  }
  ASSERT_EQ(run(options, stopped).exit_code, 0);
  EXPECT_EQ(read_bytes(stopped / "last.pt"), read_bytes(whole / "last.pt"));
  EXPECT_EQ(metrics_of(stopped / "run"), metrics_of(whole / "run"));
}

TEST_F(Train, UnderNohupAHangUpIsNotHeard) {
  struct sigaction ignored {};
  struct sigaction before {};
  ignored.sa_handler = SIG_IGN;
  ::sigaction(SIGHUP, &ignored, &before);  // the program inherits it
  const fs::path here = folder("nohup");
  Process process(small_training(packed()) + Words{"--epochs=4", "--run_dir=run", "--quiet"}, here);
  ::sigaction(SIGHUP, &before, nullptr);
  while (process.running() && !fs::exists(here / "run/metrics.jsonl"))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  process.signal(SIGHUP);
  const Outcome outcome = process.wait();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
}

TEST_F(Train, ItsProcessIsCalledByTheProgramsName) {
  const fs::path here = folder("name");
  Process process(small_training(packed()) + Words{"--epochs=400", "--run_dir=run", "--quiet"}, here);
  while (process.running() && !fs::exists(here / "run/metrics.jsonl"))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ASSERT_TRUE(process.running());
  EXPECT_EQ(process.name(), "voca-engine");  // as ps, top, pgrep and the kernel's log say it
}

TEST_F(Train, ThreadsWorkersAndResidencyChangeNothing) {
  const fs::path here = folder("runs");
  std::vector<float> first;
  int number = 0;
  for (const Words& variant : {Words{"--threads=1", "--num_workers=0", "--data_residency=disk"},
                               Words{"--threads=3", "--num_workers=1", "--data_residency=host"},
                               Words{"--threads=2", "--num_workers=4"}}) {
    const std::string name = "run" + std::to_string(number++);
    const Outcome outcome = run(small_training(packed()) + variant +
                                    Words{"--run_dir=" + name, "--save_last=" + name + ".pt", "--quiet"},
                                here);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const std::vector<float> numbers = numbers_of(here / (name + ".pt"));
    if (first.empty()) first = numbers;
    EXPECT_TRUE(same_bits(first, numbers)) << name;
  }
}

TEST_F(Train, ActivationsMayBeRecomputedInPartOfARun) {
  const fs::path here = folder("run");
  const Words options = small_training(packed()) + Words{"--resume", "--quiet"};
  const Outcome whole = run(options + Words{"--run_dir=whole", "--save_last=whole.pt"}, here);
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  for (const Words& part :
       {Words{"--max_steps=5", "--recompute"}, Words{"--max_steps=9"}, Words{"--recompute"}}) {
    const Outcome outcome = run(options + part + Words{"--run_dir=parts", "--save_last=parts.pt"}, here);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  EXPECT_TRUE(same_bits(numbers_of(here / "whole.pt"), numbers_of(here / "parts.pt")));
  // A part that --max_steps ends measures val there, and may choose another best.
  const auto steps_of = [&](const char* run_dir) {
    std::vector<nlohmann::ordered_json> lines = metrics_of(here / run_dir);
    std::erase_if(lines, [](const nlohmann::ordered_json& line) { return line["kind"] != "step"; });
    return lines;
  };
  EXPECT_EQ(steps_of("whole").size(), 16U);
  EXPECT_EQ(steps_of("whole"), steps_of("parts"));
}

TEST_F(Train, ATreeTrainsLikeItsPackedFileAndIsPackedOnce) {
  const fs::path here = folder("runs");
  const Outcome of_tree =
      run(small_training(tree()) + Words{"--run_dir=a", "--save_last=a.pt", "--epochs=1"}, here);
  ASSERT_EQ(of_tree.exit_code, 0) << of_tree.err;
  EXPECT_THAT(of_tree.err, HasSubstr("packed 60 of 60 videos"));
  const Outcome again = run(small_training(tree()) + Words{"--run_dir=b", "--epochs=1"}, here);
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(again.err.find("packed 60"), std::string::npos);
  const Outcome of_file =
      run(small_training(packed()) + Words{"--run_dir=c", "--save_last=c.pt", "--epochs=1"}, here);
  ASSERT_EQ(of_file.exit_code, 0) << of_file.err;
  EXPECT_TRUE(same_bits(numbers_of(here / "a.pt"), numbers_of(here / "c.pt")));
  // A tree that changed is packed anew, and what it was before goes.
  fs::remove_all(tree() / "real" / fs::directory_iterator(tree() / "real")->path().filename());
  const Outcome changed = run(small_training(tree()) + Words{"--run_dir=d", "--epochs=1"}, here);
  ASSERT_EQ(changed.exit_code, 0) << changed.err;
  EXPECT_THAT(changed.err, HasSubstr("packed 59 of 59 videos"));
  int files = 0;
  for (const auto& entry : fs::directory_iterator(tree().string() + ".voca_cache"))
    files += entry.path().extension() == ".h5";
  EXPECT_EQ(files, 1);
}

TEST_F(Train, ARunFolderHoldsOneRun) {
  const fs::path here = folder("run");
  const Words options = small_training(packed()) + Words{"--run_dir=run", "--epochs=1"};
  ASSERT_EQ(run(options, here).exit_code, 0);
  const Outcome again = run(options, here);
  EXPECT_EQ(again.exit_code, 64);
  EXPECT_THAT(again.message(), HasSubstr("holds a run already; continue it with --resume auto"));
  const Outcome other = run(options + Words{"--resume", "--lr=0.5"}, here);
  EXPECT_EQ(other.exit_code, 64);
  EXPECT_THAT(other.message(), HasSubstr("--lr is 0.5 and was 0.001"));
  EXPECT_EQ(run(options + Words{"--resume"}, here).exit_code, 0);
  EXPECT_EQ(run(options + Words{"--overwrite", "--lr=0.5"}, here).exit_code, 0);
}

TEST_F(Train, MaxStepsMayGrowAndContinueTheSameRun) {
  const fs::path here = folder("run");
  const Words options = small_training(packed()) + Words{"--resume", "--quiet"};
  ASSERT_EQ(run(options + Words{"--run_dir=whole", "--save_last=whole.pt", "--max_steps=11"}, here).exit_code,
            0);
  for (const char* steps : {"--max_steps=3", "--max_steps=6", "--max_steps=11"})
    ASSERT_EQ(run(options + Words{"--run_dir=pieces", "--save_last=pieces.pt", steps}, here).exit_code, 0);
  EXPECT_TRUE(same_bits(numbers_of(here / "whole.pt"), numbers_of(here / "pieces.pt")));
}

TEST_F(Train, TheConfigOfARunRepeatsIt) {
  const fs::path here = folder("run");
  ASSERT_EQ(run(small_training(packed()) + Words{"--run_dir=a", "--save_last=a.pt"}, here).exit_code, 0);
  const Outcome outcome = run({"train", "--config=a/config.json", "--run_dir=b", "--save_last=b.pt"}, here);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(same_bits(numbers_of(here / "a.pt"), numbers_of(here / "b.pt")));
}

TEST_F(Train, StartsFromTheWeightsOfACheckpoint) {
  const fs::path here = folder("run");
  ASSERT_EQ(run(small_training(packed()) + Words{"--run_dir=a", "--save_last=a.pt"}, here).exit_code, 0);
  const Outcome outcome = run(
      small_training(packed()) + Words{"--run_dir=b", "--save_last=b.pt", "--init_from=a.pt", "--lr=1e-12",
                                       "--weight_decay=0", "--epochs=1", "--warmup_epochs=0"},
      here);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const auto weights = [&](const char* name) {
    return engine::read_training_checkpoint(here / name).state_dicts.at(0).tensors;
  };
  const std::vector<engine::NamedTensor> a = weights("a.pt");
  const std::vector<engine::NamedTensor> b = weights("b.pt");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::vector<float> x(static_cast<std::size_t>(a[i].tensor.elements()));
    std::vector<float> y(x.size());
    a[i].tensor.copy_to(std::span<float>(x));
    b[i].tensor.copy_to(std::span<float>(y));
    for (std::size_t j = 0; j < x.size(); ++j) ASSERT_NEAR(x[j], y[j], 1e-6F) << a[i].name;
  }
}

TEST_F(Train, WhatIsWrongWithInitialWeightsIsSaidBeforeAnEarlierRunIsDiscarded) {
  const fs::path here = folder("run");
  const Words options = small_training(packed()) + Words{"--run_dir=a", "--epochs=1"};
  ASSERT_EQ(run(options + Words{"--save_last=a.pt"}, here).exit_code, 0);
  const Words again = options + Words{"--overwrite"};
  EXPECT_EQ(run(again + Words{"--init_from=none.pt"}, here).exit_code, 74);
  EXPECT_EQ(run(again + Words{"--init_from=a.pt", "--weights=ema"}, here).exit_code, 64);
  EXPECT_EQ(run(again + Words{"--init_from=a.pt", "--num_layers=1"}, here).exit_code, 65);
  EXPECT_TRUE(fs::exists(here / "a/checkpoints/state-0000000001.resume"));
  EXPECT_EQ(run(small_training(packed()) + Words{"--run_dir=b", "--init_from=none.pt"}, here).exit_code, 74);
  EXPECT_FALSE(fs::exists(here / "b/checkpoints"));
}

TEST_F(Train, AContinuedRunKeepsTheRecordOfWhatItBeganWith) {
  const fs::path here = folder("run");
  const Words options = small_training(packed()) + Words{"--resume"};
  ASSERT_EQ(run(options + Words{"--run_dir=a", "--save_last=a.pt"}, here).exit_code, 0);
  const auto origin = [&] {
    return nlohmann::json::parse(read_text(here / "b/config.json"))["options"]["init_from"];
  };
  const Words tuned = options + Words{"--run_dir=b", "--save_last=b.pt"};
  ASSERT_EQ(run(tuned + Words{"--init_from=a.pt", "--max_steps=3"}, here).exit_code, 0);
  EXPECT_EQ(origin(), "a.pt");
  ASSERT_EQ(run(tuned + Words{"--max_steps=6"}, here).exit_code, 0);
  EXPECT_EQ(origin(), "a.pt");
  const Outcome other = run(tuned + Words{"--init_from=c.pt"}, here);
  ASSERT_EQ(other.exit_code, 0) << other.err;
  EXPECT_THAT(other.err, HasSubstr("note: --init_from c.pt: not read, the run of b is continued"));
  EXPECT_EQ(origin(), "a.pt");
}

TEST_F(Train, ContinuesFromAStateThatIsNamed) {
  const fs::path here = folder("run");
  const Words options = small_training(packed()) + Words{"--quiet"};
  ASSERT_EQ(run(options + Words{"--run_dir=a", "--save_last=a.pt", "--keep=9"}, here).exit_code, 0);
  const Outcome outcome = run(
      options + Words{"--run_dir=c", "--save_last=c.pt", "--resume=a/checkpoints/state-0000000002.resume"},
      here);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(same_bits(numbers_of(here / "a.pt"), numbers_of(here / "c.pt")));
  const Outcome weights = run(options + Words{"--run_dir=d", "--resume=a.pt"}, here);
  EXPECT_EQ(weights.exit_code, 64);
  EXPECT_THAT(weights.message(), HasSubstr("is a checkpoint, not a training state"));
}

TEST_F(Train, TellsItsCheckpointFromThatOfAnotherTraining) {
  const fs::path here = folder("run");
  const Words options = small_training(packed()) + Words{"--epochs=1", "--json"};
  ASSERT_EQ(run(options + Words{"--save_path=a.pt", "--seed=1"}, here).exit_code, 0);
  ASSERT_EQ(run(options + Words{"--save_path=b.pt", "--seed=2"}, here).exit_code, 0);
  const auto config = nlohmann::ordered_json::parse(read_text(here / "a.run/config.json"));
  const RunValues now{config["options"], 1};
  EXPECT_EQ(why_not_kept(here / "a.pt", 1, now), "");
  EXPECT_EQ(why_not_kept(here / "a.pt", std::nullopt, now), "");
  constexpr const char* kWritten = "another training has written it since this one did";
  EXPECT_THAT(why_not_kept(here / "a.pt", 2, now), HasSubstr(kWritten));
  EXPECT_THAT(why_not_kept(here / "b.pt", 1, now), HasSubstr(kWritten));
}

TEST_F(Train, WithoutValidationKeepsTheLastWeights) {
  const fs::path here = folder("run");
  const Outcome outcome =
      run(small_training(packed()) + Words{"--no_val", "--save_path=last.pt", "--json"}, here);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(outcome.json()["best"].is_null());
  EXPECT_EQ(outcome.json()["checkpoint"], "last.pt");
  EXPECT_FALSE(outcome.json()["test"].is_null());
  EXPECT_TRUE(engine::read_pt(here / "last.pt").value.find("val_auc")->is_none());
}

TEST_F(Train, ADamagedVideoIsLeftOutByNameAndCapped) {
  const fs::path here = folder("run");
  fs::copy_file(packed(), here / "damaged.h5");
  const data::Dataset dataset(packed());
  const std::int64_t victim = dataset.samples_of(data::Split::kTrain).front();
  std::vector<std::byte> row(dataset.row_bytes(data::Stream::kVisual));
  dataset.read_raw(data::Stream::kVisual, victim, 0, 1, row.data());
  std::vector<std::byte> bytes = read_bytes(here / "damaged.h5");
  const auto at = std::search(bytes.begin(), bytes.end(), row.begin(), row.end());
  ASSERT_NE(at, bytes.end());
  *at ^= std::byte{4};
  write_bytes(here / "damaged.h5", bytes);

  const Outcome outcome = run(small_training(here / "damaged.h5") + Words{"--run_dir=a"}, here);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr(dataset.id(victim) + " are damaged"));
  EXPECT_EQ(metrics_of(here / "a")[15]["bad_samples"], 1);
  const Outcome capped =
      run(small_training(here / "damaged.h5") + Words{"--run_dir=b", "--max_bad_samples=0"}, here);
  EXPECT_EQ(capped.exit_code, 65);
  EXPECT_THAT(capped.message(), HasSubstr(dataset.id(victim)));
  const Outcome inspected = run({"inspect", "damaged.h5", "--verify"}, here);
  EXPECT_EQ(inspected.exit_code, 65);
  EXPECT_THAT(inspected.message(), HasSubstr(dataset.id(victim)));
}

TEST_F(Train, ADiskThatIsFullEndsItWithThePathAndKeepsWhatWasSaved) {
  // 40 KiB a file: the records fit, a resume state does not.
  const fs::path here = folder("run");
  const Words options = small_training(packed()) + Words{"--run_dir=run", "--resume", "--checkpoint_every=1"};
  ASSERT_EQ(run(options + Words{"--max_steps=4"}, here).exit_code, 0);
  const std::vector<std::byte> before = read_bytes(here / "run/best_model.pt");
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  rlimit small = limit;
  small.rlim_cur = 40 * 1024;
  ::setrlimit(RLIMIT_FSIZE, &small);  // the program inherits it
  const Outcome full = run(options, here);
  ::setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_EQ(full.exit_code, 74) << full.err;
  EXPECT_THAT(full.message(), HasSubstr("run/"));
  EXPECT_EQ(read_bytes(here / "run/best_model.pt"), before);
  for (const auto& entry : fs::recursive_directory_iterator(here))
    EXPECT_TRUE(entry.path().filename() == ".lock" || !entry.path().filename().string().starts_with("."))
        << entry.path();
  EXPECT_EQ(run(options, here).exit_code, 0);
}

}  // namespace
}  // namespace voca::tools::testing
