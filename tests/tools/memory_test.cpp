#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>

#include "engine/base/error.h"
#include "engine/core/cuda_device.h"
#include "model/crossmodal_transformer.h"
#include "tests/data/support/scratch.h"
#include "tests/tools/support/program.h"
#include "tests/tools/support/small_data.h"
#include "tools/run_memory.h"

// What a run takes of memory, and what the program says where there is less.

namespace voca::tools::testing {
namespace {

namespace fs = std::filesystem;
using data::Residency;
using data::testing::Scratch;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr std::size_t kMib = std::size_t{1} << 20;

std::vector<std::string> names_of(const std::vector<engine::MemoryLine>& lines) {
  std::vector<std::string> names;
  names.reserve(lines.size());
  for (const engine::MemoryLine& line : lines) names.push_back(line.name);
  return names;
}

std::size_t bytes_named(const std::vector<engine::MemoryLine>& lines, const std::string& name) {
  std::size_t sum = 0;
  for (const engine::MemoryLine& line : lines)
    if (line.name == name) sum += line.bytes;
  return sum;
}

class RunMemoryTest : public ::testing::Test {
 protected:
  RunMemoryTest() {
    options_.model.hidden = 16;
    options_.model.num_layers = 1;
    options_.model.num_heads = 2;
    options_.model.seq_len = 12;
    options_.batches.sampler.batch_size = 8;
    options_.batches.num_workers = 2;
    make_network();
  }
  void make_network() {
    network_ = model::make_crossmodal_transformer(model_config(options_, 32, 24), loss_config(options_, 1),
                                                  activations(options_));
  }
  [[nodiscard]] RunNeeds needs(engine::DeviceKind device = engine::DeviceKind::kCpu,
                               int world_size = 1) const {
    return training_needs(options_, *network_, {.device = device}, engine::DType::kF32, world_size,
                          {.visual_dim = 32, .audio_dim = 24, .frame_bytes = 1 << 20, .val_samples = 1000});
  }
  static Room host(std::size_t bytes, int ranks = 1) {
    const engine::FreeMemory free{.bytes = bytes, .limit = "cgroup limit 1.0 GiB of /job"};
    return {.device = free, .host = free, .ranks_here = ranks};
  }
  static Room gpu(std::size_t device, std::size_t host) {
    return {.device = engine::FreeMemory{.bytes = device, .limit = ""},
            .host = {.bytes = host, .limit = "MemAvailable"}};
  }

  TrainOptions options_;
  std::unique_ptr<engine::Model> network_;
};

TEST_F(RunMemoryTest, CountsBatchesFramesPredictionsAndTheSumsOfRanks) {
  const RunMemory memory = plan_run(needs(), host(1000 * kMib));
  EXPECT_THAT(names_of(memory.device), ::testing::IsSupersetOf({"weights", "activations", "batches",
                                                                "frames held in memory", "predictions"}));
  // Two sources, three batches each, of float32.
  EXPECT_EQ(bytes_named(memory.device, "batches"), 2U * 3 * 8 * 12 * (32 + 24) * 4);
  EXPECT_EQ(bytes_named(memory.device, "frames held in memory"), kMib);
  EXPECT_GE(bytes_named(memory.device, "predictions"), 1000U * (8 + 4 + 8 + 8));
  EXPECT_EQ(bytes_named(memory.device, "gradients on their way"), 0U);
  EXPECT_THAT(memory.host, IsEmpty());
  const RunMemory of_two = plan_run(needs(engine::DeviceKind::kCpu, 2), host(1000 * kMib, 2));
  EXPECT_GT(bytes_named(of_two.device, "gradients on their way"), 0U);
}

TEST_F(RunMemoryTest, OnAGpuCountsTheHostsMemoryToo) {
  if (!engine::built_with_cuda()) GTEST_SKIP() << "built without CUDA";
  const RunMemory staged = plan_run(needs(engine::DeviceKind::kCuda), gpu(40 * kMib, 1000 * kMib));
  EXPECT_EQ(staged.residency, Residency::kGpu);
  EXPECT_EQ(bytes_named(staged.device, "frames held on the device"), kMib);
  EXPECT_GT(bytes_named(staged.host, "state to save"), 0U);
  EXPECT_EQ(bytes_named(staged.host, "batches"), 0U);
  // A GPU with room for all but the frames.
  const std::size_t rest = bytes_of(staged.device) - kMib;
  const RunMemory on_host = plan_run(needs(engine::DeviceKind::kCuda), gpu(rest + kMib / 2, 1000 * kMib));
  EXPECT_EQ(on_host.residency, Residency::kHost);
  EXPECT_EQ(bytes_named(on_host.host, "frames held in memory"), kMib);
  EXPECT_GT(bytes_named(on_host.host, "batches"), 0U);
  options_.pin_memory = true;
  const RunMemory pinned = plan_run(needs(engine::DeviceKind::kCuda), gpu(rest + kMib / 2, 1000 * kMib));
  EXPECT_EQ(bytes_named(pinned.host, "batches, page-locked"), bytes_named(on_host.host, "batches"));
}

TEST_F(RunMemoryTest, FramesAreHeldOnceForEachRankOfAMachineOrNotAtAll) {
  const auto residency = [&](std::size_t free, int ranks) {
    return plan_run(needs(), host(free, ranks)).residency;
  };
  EXPECT_EQ(residency(64 * kMib, 1), Residency::kHost);
  EXPECT_EQ(residency(64 * kMib, 4), Residency::kHost);
  EXPECT_EQ(residency(7 * kMib, 4), Residency::kDisk);  // four copies are more than half of it
  EXPECT_THAT(plan_run(needs(), host(64 * kMib, 4)).why, HasSubstr("a copy for each of 4 ranks"));
  EXPECT_THAT(plan_run(needs(), host(7 * kMib, 4)).why, HasSubstr("read from the file"));
  // Half of the memory would do, but the rest of the run needs it.
  const std::size_t rest = bytes_of(plan_run(needs(), host(1)).device);
  EXPECT_EQ(residency(rest + kMib / 2, 1), Residency::kDisk);
  EXPECT_EQ(residency(rest + 2 * kMib, 1), Residency::kHost);
  options_.batches.residency = data::Residency::kHost;
  EXPECT_EQ(residency(kMib, 4), Residency::kHost);  // as asked
}

TEST_F(RunMemoryTest, WhatDoesNotFitIsTheTableAndTheLargestBatchThatDoes) {
  options_.batches.sampler.batch_size = 100000;
  const Room room = host(64 * kMib);
  try {
    static_cast<void>(plan_run_that_fits(needs(), room));
    FAIL() << "it fits";
  } catch (const engine::Error& error) {
    EXPECT_EQ(error.code(), engine::ExitCode::kIo);
    const std::string message = error.what();
    std::smatch found;
    EXPECT_THAT(message, AllOf(StartsWith("cpu: out of memory: "), HasSubstr("for --batch_size 100000, "),
                               HasSubstr("are free (cgroup limit 1.0 GiB of /job); "), HasSubstr("batches"),
                               HasSubstr("predictions"), HasSubstr("activations")));
    ASSERT_TRUE(
        std::regex_search(message, found, std::regex("the largest --batch_size that fits is ([0-9]+)")));
    options_.batches.sampler.batch_size = std::stoll(found[1]);
  }
  EXPECT_NO_THROW(static_cast<void>(plan_run_that_fits(needs(), room)));
  ++options_.batches.sampler.batch_size;
  EXPECT_THROW(static_cast<void>(plan_run_that_fits(needs(), room)), engine::Error);
}

TEST_F(RunMemoryTest, RanksOfAMachineShareIt) {
  const std::size_t one = bytes_of(plan_run(needs(engine::DeviceKind::kCpu, 4), host(1, 4)).device);
  EXPECT_NO_THROW(
      static_cast<void>(plan_run_that_fits(needs(engine::DeviceKind::kCpu, 4), host(4 * one, 4))));
  try {
    static_cast<void>(plan_run_that_fits(needs(engine::DeviceKind::kCpu, 4), host(4 * one - 4, 4)));
    FAIL() << "it fits";
  } catch (const engine::Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("are needed by each of 4 ranks here for --batch_size 8"));
  }
}

TEST_F(RunMemoryTest, TheHostMayBeWhatDoesNotSuffice) {
  if (!engine::built_with_cuda()) GTEST_SKIP() << "built without CUDA";
  options_.batches.residency = data::Residency::kHost;
  try {
    static_cast<void>(plan_run_that_fits(needs(engine::DeviceKind::kCuda), gpu(1000 * kMib, kMib)));
    FAIL() << "it fits";
  } catch (const engine::Error& error) {
    EXPECT_THAT(error.what(), AllOf(StartsWith("host: out of memory: "), HasSubstr("(MemAvailable)"),
                                    HasSubstr("frames held in memory")));
  }
}

TEST_F(RunMemoryTest, SizesBeyondCountingAreRefused) {
  struct Sizes {
    std::int64_t batch_size, seq_len, hidden, grad_accum;
  };
  constexpr std::int64_t kHuge = 4'000'000'000'000'000'000;
  for (const Sizes& sizes : {Sizes{kHuge, 12, 16, 1},
                             {8, kHuge, 16, 1},
                             {9'000'000'000, 2'000'000'000, 16, 1},
                             {8, 12, 4'000'000'000, 1},
                             {8, 12, 16, kHuge}}) {
    options_.batches.sampler.batch_size = sizes.batch_size;
    options_.model.seq_len = sizes.seq_len;
    options_.model.hidden = sizes.hidden;
    options_.trainer.grad_accum = sizes.grad_accum;
    make_network();
    EXPECT_THROW(static_cast<void>(plan_run(needs(), host(64 * kMib))), engine::UsageError);
  }
}

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The program with `kilobytes` of addresses.
Outcome run_within(std::int64_t kilobytes, const Words& words, const fs::path& folder) {
  std::string command = fmt::format("cd '{}' && ulimit -v {} && exec timeout -s KILL 40 '{}'",
                                    folder.string(), kilobytes, VOCA_PROGRAM);
  for (const std::string& word : words) command += " '" + word + "'";
  const int status = std::system((command + " >out 2>err").c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), text_of(folder / "out"),
          text_of(folder / "err")};
}

class LittleMemory : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a sanitizer's shadow takes more addresses than these tests leave";
#endif
  }
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    make_small_tree(here() / "tree", 60);
    pack_small_tree(here() / "tree", here() / "packed.h5");
  }
  static void TearDownTestSuite() {
    delete scratch_;
    scratch_ = nullptr;
  }
  static fs::path here() {
    return scratch_->path();
  }
  /// Kilobytes of addresses in which the program is loaded, to 4 MiB: of a build for GPUs most are its
  /// libraries'.
  static std::int64_t to_load() {
    static const std::int64_t least = [] {
      std::int64_t too_few = 16'384;
      std::int64_t enough = 16'777'216;
      while (enough - too_few > 4096) {
        const std::int64_t middle = (too_few + enough) / 2;
        (run_within(middle, {"--version"}, here()).exit_code == 0 ? enough : too_few) = middle;
      }
      return enough;
    }();
    return least;
  }
  static Words training() {
    return small_training("packed.h5") + Words{"--threads=1", "--run_dir=run"};
  }

 private:
  static Scratch* scratch_;
};
Scratch* LittleMemory::scratch_ = nullptr;

TEST_F(LittleMemory, TrainEndsWithTheTableThatPlanPrints) {
  for (const char* size : {"--batch_size=100000", "--seq_len=100000", "--hidden=20000"}) {
    const Outcome trained = run_within(2'000'000, training() + Words{size}, here());
    EXPECT_EQ(trained.exit_code, 74) << size << trained.err;
    EXPECT_THAT(trained.err, AllOf(HasSubstr("cpu: out of memory: "), HasSubstr("(ulimit -v 1.9 GiB)"),
                                   HasSubstr(" batches\n"), HasSubstr(" predictions\n")));
    Words plan = training() + Words{size, "--json"};
    plan.front() = "plan";
    const Outcome planned = run_within(2'000'000, plan, here());
    ASSERT_EQ(planned.exit_code, 0) << size << planned.err;
    EXPECT_THAT(trained.err,
                HasSubstr(planned.json()["memory_bytes"].dump() + " bytes are needed for --batch_size"));
    EXPECT_EQ(planned.json()["free_limit"], "ulimit -v 1.9 GiB");
  }
}

TEST_F(LittleMemory, WhatFitsIsTrainedAndTested) {
  // Beside the program itself and its data some tens of MiB are left: none for a heap a thread.
  const Outcome trained = run_within(
      to_load() + 100'000, training() + Words{"--epochs=2", "--run_dir=fits", "--json", "--quiet"}, here());
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_FALSE(trained.json()["test"].is_null()) << trained.json();
}

TEST_F(LittleMemory, EvaluationEndsWithItsTable) {
  const Outcome trained = run(training() + Words{"--epochs=1", "--save_last=last.pt", "--quiet"}, here());
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  for (const char* command : {"eval", "predict"}) {
    const Outcome outcome = run_within(
        2'000'000,
        {command, "--checkpoint=last.pt", "--features_root=packed.h5", "--batch_size=1000000", "--threads=1"},
        here());
    EXPECT_EQ(outcome.exit_code, 74) << outcome.err;
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("cpu: out of memory: "), HasSubstr("the largest --batch_size")));
  }
}

TEST_F(LittleMemory, CheckpointsThatDoNotFitTogetherPredictOneAfterAnother) {
  const Words training{
      "train",         "--features_root=packed.h5", "--hidden=256",   "--num_layers=2", "--seq_len=8",
      "--max_steps=1", "--save_path=wide.pt",       "--batch_size=4", "--no_val",       "--quiet"};
  ASSERT_EQ(run(training, here()).exit_code, 0);
  std::string checkpoints = "--checkpoint=wide.pt";
  for (int i = 1; i < 12; ++i) checkpoints += ",wide.pt";
  const Words words{"predict", checkpoints, "--threads=1", "--num_workers=0", "--features_root=packed.h5"};
  const Outcome together = run(words, here());
  ASSERT_EQ(together.exit_code, 0) << together.err;
  // Beside the program, for the weights of half of them: 8 MB each.
  const Outcome apart = run_within(to_load() + 60'000, words, here());
  EXPECT_EQ(apart.exit_code, 0) << apart.err;
  EXPECT_EQ(apart.out, together.out);
}

TEST_F(LittleMemory, ACheckpointThatDoesNotFitIsNamedBeforeThoseThatDo) {
  const Words training{"train",          "--features_root=packed.h5",
                       "--max_steps=1",  "--no_val",
                       "--batch_size=4", "--num_layers=1",
                       "--num_heads=1",  "--quiet"};
  ASSERT_EQ(run(training + Words{"--hidden=16", "--seq_len=4", "--save_path=small.pt"}, here()).exit_code, 0);
  ASSERT_EQ(run(training + Words{"--hidden=1024", "--seq_len=8", "--save_path=large.pt"}, here()).exit_code,
            0);
  const Words words{"predict", "--checkpoint=small.pt,large.pt", "--threads=1", "--num_workers=0",
                    "--features_root=packed.h5"};
  const Outcome outcome = run_within(to_load() + 40'000, words, here());
  EXPECT_EQ(outcome.exit_code, 74) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("large.pt: cpu: out of memory: "));
  EXPECT_EQ(outcome.out, "");
}

TEST_F(LittleMemory, SizesBeyondCountingAreOneLine) {
  for (const Words& sizes : {Words{"--batch_size=4000000000000000000"},
                             Words{"--batch_size=9000000000", "--seq_len=2000000000"}}) {
    Words words = training() + sizes + Words{"--run_dir=refused"};
    for (const char* command : {"train", "plan"}) {
      words.front() = command;
      const Outcome outcome = run(words, here(), {{"COLUMNS", "200"}});
      EXPECT_EQ(outcome.exit_code, 64) << outcome.err;
      EXPECT_THAT(outcome.message(), HasSubstr("beyond counting"));
    }
  }
}

TEST_F(LittleMemory, TooFewAddressesForThreadsAreOneLine) {
  const Outcome trained = run_within(to_load() + 100'000, training() + Words{"--threads=64"}, here());
  EXPECT_EQ(trained.exit_code, 74) << trained.err;
  EXPECT_THAT(trained.message(), AllOf(HasSubstr("a thread for the kernels cannot be started: "),
                                       HasSubstr("(ulimit -v)"), HasSubstr("--threads")));
  ::setenv("OMP_NUM_THREADS", "64", 1);
  const Outcome doctor = run_within(to_load() + 100'000, {"doctor"}, here());
  ::unsetenv("OMP_NUM_THREADS");
  EXPECT_EQ(doctor.exit_code, 70) << doctor.err;
  EXPECT_THAT(doctor.out, HasSubstr("a thread for the kernels"));
}

TEST_F(LittleMemory, FewAddressesHoldNothingUp) {
  for (const std::int64_t kilobytes : {70'000, 120'000, 220'000, 320'000}) {
    const Outcome outcome = run_within(to_load() + kilobytes, {"inspect", "packed.h5"}, here());
    EXPECT_EQ(outcome.exit_code, 0) << kilobytes << outcome.err;
  }
}

TEST_F(LittleMemory, DoctorAndPlanSayWhichLimitBinds) {
  EXPECT_THAT(run({"doctor"}, here(), {{"COLUMNS", "200"}}).out, HasSubstr(" can be taken ("));
  EXPECT_THAT(run_within(2'000'000, {"doctor"}, here()).out, HasSubstr("(ulimit -v"));
  Words words = training();
  words.front() = "plan";
  EXPECT_THAT(run_within(2'000'000, words, here()).out, HasSubstr("(ulimit -v 1.9 GiB)"));
}

}  // namespace
}  // namespace voca::tools::testing
