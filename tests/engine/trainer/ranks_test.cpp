// A run on several ranks is the run on one with the same global batch.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/core/element.h"
#include "engine/rendezvous/memory_store.h"
#include "tests/engine/comm/support/ranks.h"
#include "tests/engine/support/files.h"
#include "tests/engine/trainer/trainer_support.h"

namespace voca::engine {
namespace {

using test::bits_of;
using test::message_of;
using test::Recorder;
using test::TemporaryFolder;
using test::toy_config;
using test::ToyModel;
using test::ToySource;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// What a run on several ranks is made of, beside the trainer's configuration.
struct Job {
  int world_size = 1;
  ToySource::Options train = {.samples = 60, .batch_size = 24};
  ToySource::Options val = {.samples = 23, .batch_size = 3, .seed = 2, .shuffle = false};
  /// Called on every rank before the trainer runs.
  std::function<void(int rank, ToyModel&, ToySource&, Trainer&)> before = [](int, ToyModel&, ToySource&,
                                                                             Trainer&) {};
};

/// What a rank is left with.
struct Outcome {
  Recorder recorder;
  std::string bits;
  std::vector<double> weights;
  TrainingResult result;
  std::string error;
};

void run_rank(const TrainerConfig& config, const Job& job, int rank, const Ranks& ranks, Outcome& outcome) {
  ToyModel model;
  const auto of_rank = [&](ToySource::Options options) {
    options.rank = rank;
    options.world_size = job.world_size;
    return options;
  };
  ToySource train(of_rank(job.train));
  ToySource val(of_rank(job.val));
  const auto device = make_cpu_device(1);
  const model::DetectionTask task(1);
  Trainer trainer(config, model, task, train, config.no_val ? nullptr : &val, *device, outcome.recorder,
                  ranks);
  // Rank 0's weights are what all start from.
  trainer.parameters().initialise(config.seed + static_cast<std::uint64_t>(rank));
  if (rank == 0 && !config.checkpoint_folder.empty()) (void)trainer.resume_latest();
  job.before(rank, model, train, trainer);
  outcome.result = trainer.run();
  outcome.bits = bits_of(trainer.parameters());
  const Tensor& weights = trainer.parameters().weights();
  for (std::int64_t i = 0; i < weights.elements(); ++i) outcome.weights.push_back(read_back(weights, i));
}

/// Every rank a thread, over Gloo.
std::vector<Outcome> run_job(const TrainerConfig& config, const Job& job) {
  std::vector<Outcome> outcomes(static_cast<std::size_t>(job.world_size));
  MemoryStore store;
  const auto body = [&](int rank) {
    Outcome& outcome = outcomes[static_cast<std::size_t>(rank)];
    try {
      if (job.world_size == 1) return run_rank(config, job, 0, {}, outcome);
      const auto main = make_gloo_communicator(store, rank, job.world_size, {.name = "main"});
      const auto gradients = make_gloo_communicator(store, rank, job.world_size, {.name = "gradients"});
      run_rank(config, job, rank, {.main = main.get(), .gradients = gradients.get()}, outcome);
    } catch (const std::exception& error) {
      outcome.error = error.what();
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < job.world_size; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

std::vector<Outcome> run_well(const TrainerConfig& config, const Job& job) {
  std::vector<Outcome> outcomes = run_job(config, job);
  for (const Outcome& outcome : outcomes) {
    EXPECT_THAT(outcome.error, IsEmpty());
    EXPECT_EQ(outcome.bits, outcomes[0].bits) << "ranks differ";
  }
  return outcomes;
}

void expect_close(const std::vector<double>& got, const std::vector<double>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  double largest = 0;
  for (const double value : want) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], want[i], tolerance * largest) << i;
}

class RanksTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!with_gloo()) GTEST_SKIP() << "built without Gloo";
  }
};

class WorldSize : public RanksTest, public ::testing::WithParamInterface<int> {};

TEST_P(WorldSize, TrainsAsOneRankWithTheSameGlobalBatch) {
  TrainerConfig config = toy_config();
  config.grad_accum = 2;  // a step of two batches, and one of what is left
  const std::vector<Outcome> one = run_well(config, {});
  const std::vector<Outcome> ranks = run_well(config, {.world_size = GetParam()});
  for (const Outcome& outcome : ranks) {
    expect_close(outcome.weights, one[0].weights, 1e-5);
    EXPECT_EQ(outcome.result.step, one[0].result.step);
    ASSERT_THAT(outcome.recorder.epochs, SizeIs(3));
    for (std::size_t epoch = 0; epoch < 3; ++epoch) {
      const EpochRecord& got = outcome.recorder.epochs[epoch];
      const EpochRecord& want = one[0].recorder.epochs[epoch];
      EXPECT_NEAR(got.loss.total(), want.loss.total(), 1e-5 * want.loss.total());
      EXPECT_NEAR(got.grad_norm, want.grad_norm, 1e-5 * want.grad_norm);
      EXPECT_EQ(got.samples, want.samples);
      EXPECT_NEAR(*got.summary->measure("loss"), *want.summary->measure("loss"),
                  1e-5 * *want.summary->measure("loss"));
    }
  }
}

TEST_P(WorldSize, GivesTheSameBitsTwice) {
  const Job job{.world_size = GetParam()};
  EXPECT_EQ(run_well(toy_config(), job)[0].bits, run_well(toy_config(), job)[0].bits);
}

// A learning rate of next to nothing leaves every world the same weights.
TEST_P(WorldSize, EvaluatesToTheLastDigitOfOneRank) {
  TrainerConfig config = toy_config();
  config.lr = 1e-30;
  config.epochs = 1;
  const auto lines_of_epochs = [](const Outcome& outcome) {
    nlohmann::ordered_json line = to_json(outcome.recorder.epochs.at(0));
    for (const char* key : {"loss", "cls", "con", "grad_norm", "samples_per_s", "seconds"}) line.erase(key);
    return line.dump();
  };
  const std::string one = lines_of_epochs(run_well(config, {})[0]);
  EXPECT_THAT(one, HasSubstr("val_auc"));
  for (const Outcome& outcome : run_well(config, {.world_size = GetParam()}))
    EXPECT_EQ(lines_of_epochs(outcome), one);
}

INSTANTIATE_TEST_SUITE_P(Ranks, WorldSize, ::testing::Values(2, 3, 4, 8),
                         ::testing::PrintToStringParamName());

TEST_F(RanksTest, ResumeOnOtherNumbersOfRanksContinues) {
  const TemporaryFolder folder;
  const TemporaryFolder undisturbed_folder;
  TrainerConfig config = toy_config();
  config.checkpoint_folder = undisturbed_folder.path();
  const std::vector<Outcome> undisturbed = run_well(config, {.world_size = 4});

  config.checkpoint_folder = folder.path();
  config.max_steps = 2;  // within the first epoch
  (void)run_well(config, {.world_size = 4});
  config.max_steps = 5;
  (void)run_well(config, {.world_size = 2});
  config.max_steps = 0;
  const std::vector<Outcome> resumed = run_well(config, {.world_size = 4});
  EXPECT_THAT(resumed[0].recorder.messages, Contains(HasSubstr("step 5")));
  expect_close(resumed[0].weights, undisturbed[0].weights, 1e-5);
}

TEST_F(RanksTest, ResumeOnTheSameNumberOfRanksIsBitwiseExact) {
  const TemporaryFolder folder;
  TrainerConfig config = toy_config();
  const std::vector<Outcome> undisturbed = run_well(config, {.world_size = 3});
  config.checkpoint_folder = folder.path();
  config.max_steps = 4;
  (void)run_well(config, {.world_size = 3});
  config.max_steps = 0;
  EXPECT_EQ(run_well(config, {.world_size = 3})[0].bits, undisturbed[0].bits);
}

TEST_F(RanksTest, OneRankAskedToStopStopsAllAfterTheSameStep) {
  const TemporaryFolder folder;
  TrainerConfig config = toy_config();
  config.checkpoint_folder = folder.path();
  int asked = 0;
  const auto stop_on_rank_2 = [&](int rank, ToyModel&, ToySource&, Trainer& trainer) {
    if (rank == 2) trainer.set_stop_reason([&] { return ++asked > 2 ? "SIGTERM" : nullptr; });
  };
  const std::vector<Outcome> stopped = run_job(config, {.world_size = 4, .before = stop_on_rank_2});
  for (std::size_t rank = 0; rank < 4; ++rank) {
    EXPECT_THAT(stopped[rank].error, AllOf(HasSubstr(rank == 2 ? "SIGTERM" : "a signal to another rank"),
                                           HasSubstr("step 3"), HasSubstr("--resume auto")));
  }
  config.checkpoint_folder.clear();
  const std::string undisturbed = run_well(config, {.world_size = 4})[0].bits;
  config.checkpoint_folder = folder.path();
  EXPECT_EQ(run_well(config, {.world_size = 4})[0].bits, undisturbed);
}

TEST_F(RanksTest, ABadGradientOnOneRankSkipsTheStepOnAll) {
  const auto spoil_rank_1 = [](int rank, ToyModel& model, ToySource&, Trainer&) {
    if (rank != 1) return;
    model.after_backward = [](const ParameterStore& parameters, const StepRandom& random, const Tensor&) {
      if (random.step == 2) *parameters.gradient(0).as<float>() = std::nanf("");
    };
  };
  for (const Outcome& outcome : run_well(toy_config(), {.world_size = 3, .before = spoil_rank_1}))
    EXPECT_EQ(outcome.result.bad_steps, 1);
}

TEST_F(RanksTest, ABadLossOnOneRankSkipsTheStepOnAll) {
  const auto spoil_rank_1 = [](int rank, ToyModel& model, ToySource&, Trainer&) {
    if (rank != 1) return;
    model.after_backward = [](const ParameterStore&, const StepRandom& random, Tensor losses) {
      if (random.step == 2) losses.as<float>()[0] = std::nanf("");
    };
  };
  for (const Outcome& outcome : run_well(toy_config(), {.world_size = 3, .before = spoil_rank_1}))
    EXPECT_EQ(outcome.result.bad_steps, 1);
}

// The seven good samples of a batch of eight weigh the same, wherever the bad one was.
TEST_F(RanksTest, ABadSampleIsLeftOutAsOnOneRank) {
  TrainerConfig config = toy_config();
  config.epochs = 2;
  const auto spoil = [](int owner, std::int64_t sample) {
    return [=](int rank, ToyModel&, ToySource& source, Trainer&) {
      if (rank == owner || owner < 0) source.bad = {sample};
    };
  };
  const std::vector<Outcome> one = run_well(config, {.before = spoil(0, 17)});
  const std::vector<Outcome> ranks = run_well(config, {.world_size = 2, .before = spoil(-1, 17)});
  expect_close(ranks[0].weights, one[0].weights, 1e-5);
  EXPECT_EQ(ranks[0].recorder.epochs.at(0).samples, 59);
}

TEST_F(RanksTest, BadSamplesOfAllRanksCountTogether) {
  TrainerConfig config = toy_config();
  config.max_bad_samples = 2;
  const auto one_each = [](int rank, ToyModel&, ToySource& source, Trainer&) { source.bad = {rank}; };
  for (const Outcome& outcome : run_job(config, {.world_size = 3, .before = one_each}))
    EXPECT_THAT(outcome.error, AllOf(HasSubstr("3 samples are damaged"), HasSubstr("--max_bad_samples 2")));
  for (const Outcome& outcome : run_well(config, {.world_size = 2, .before = one_each}))
    EXPECT_EQ(outcome.recorder.epochs.at(0).bad_samples, 2);
}

TEST_F(RanksTest, ARankWhoseWeightsDriftedIsNamedBeforeAnythingIsSaved) {
  const TemporaryFolder folder;
  TrainerConfig config = toy_config();
  config.checkpoint_folder = folder.path();
  const auto drift = [](int rank, ToyModel& model, ToySource&, Trainer&) {
    if (rank != 1) return;
    model.after_backward = [](const ParameterStore& parameters, const StepRandom&, const Tensor&) {
      parameters.weight(0).as<float>()[0] += 1e-3F;
    };
  };
  for (const Outcome& outcome : run_job(config, {.world_size = 3, .before = drift}))
    EXPECT_THAT(outcome.error, HasSubstr("of rank 1 are not those of rank 0"));
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    EXPECT_NE(entry.path().extension(), ".resume");
}

}  // namespace
}  // namespace voca::engine
