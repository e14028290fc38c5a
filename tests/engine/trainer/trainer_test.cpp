#include "engine/trainer/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "engine/core/element.h"
#include "tests/engine/support/files.h"
#include "tests/engine/trainer/trainer_support.h"
#include "tests/support/allocations.h"

namespace voca::engine {
namespace {

using test::bits_of;
using test::message_of;
using test::Recorder;
using test::toy_config;
using test::ToyModel;
using test::ToyRun;
using test::ToySource;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using testing::StartsWith;

std::vector<double> weights_of(const ParameterStore& parameters) {
  std::vector<double> values;
  for (ParameterId id = 0; id < parameters.count(); ++id) {
    for (std::int64_t i = 0; i < parameters.weight(id).elements(); ++i)
      values.push_back(read_back(parameters.weight(id), i));
  }
  return values;
}

void set_first(Tensor tensor, double value) {
  if (tensor.dtype == DType::kF64) {
    *tensor.as<double>() = value;
  } else {
    *tensor.as<float>() = static_cast<float>(value);
  }
}

constexpr ParameterId kHiddenBias = 1;

TEST(Trainer, LearnsWhatThereIsToLearn) {
  TrainerConfig config = toy_config();
  config.epochs = 40;
  Recorder recorder;
  ToyRun run(config, recorder, {.dropout = 0, .train = {.samples = 200, .batch_size = 20}});
  const TrainingResult result = run.trainer.run();
  EXPECT_EQ(result.epochs, 40);
  EXPECT_EQ(result.step, 400);
  EXPECT_LT(recorder.epochs.back().loss.total(), 0.8 * recorder.epochs.front().loss.total());
  EXPECT_GT(result.best->measure("auc"), 0.8);
}

TEST(Trainer, TheSameSeedGivesTheSameBitsAndAnotherOthers) {
  const auto bits_with = [](std::uint64_t seed) {
    TrainerConfig config = toy_config();
    config.seed = seed;
    Recorder recorder;
    ToyRun run(config, recorder);
    (void)run.trainer.run();
    return bits_of(run.trainer.parameters());
  };
  EXPECT_TRUE(bits_with(1) == bits_with(1));
  EXPECT_FALSE(bits_with(1) == bits_with(2));
}

// Batches of four, three to a step, are batches of twelve; the step at the end of an epoch has what is left.
TEST(Trainer, AccumulationStepsByTheMeanGradient) {
  const auto weights_after = [](std::int64_t samples, std::int64_t batch, std::int64_t accumulated) {
    TrainerConfig config = toy_config();
    config.compute_type = DType::kF64;
    config.grad_accum = accumulated;
    config.no_val = true;
    Recorder recorder;
    ToyRun run(config, recorder, {.dropout = 0, .train = {.samples = samples, .batch_size = batch}});
    const TrainingResult result = run.trainer.run();
    EXPECT_EQ(result.step, config.epochs * ((samples + 11) / 12));
    return weights_of(run.trainer.parameters());
  };
  for (const std::int64_t samples : {24, 32}) {
    const auto at_once = weights_after(samples, 12, 1);
    const auto accumulated = weights_after(samples, 4, 3);
    for (std::size_t i = 0; i < at_once.size(); ++i)
      EXPECT_NEAR(accumulated[i], at_once[i], 1e-12 * std::abs(at_once[i]) + 1e-14) << samples;
  }
}

TEST(Trainer, RecordsMeansOverTheSamplesOfAStepAndAnEpoch) {
  TrainerConfig config = toy_config();
  config.epochs = 1;
  config.grad_accum = 4;  // steps of 16 and 6 samples
  Recorder recorder;
  std::vector<StepRecord> steps;
  recorder.progress = [&](const StepRecord& record) { steps.push_back(record); };
  ToyRun run(config, recorder);
  std::vector<double> losses;
  run.model.after_backward = [&](const ParameterStore&, const StepRandom&, const Tensor& of_batch) {
    losses.push_back(read_back(of_batch, 0));
  };
  (void)run.trainer.run();
  ASSERT_THAT(losses, SizeIs(6));
  ASSERT_THAT(steps, SizeIs(2));
  EXPECT_DOUBLE_EQ(steps[0].loss.total(), (losses[0] + losses[1] + losses[2] + losses[3]) / 4);
  EXPECT_DOUBLE_EQ(steps[1].loss.total(), (4 * losses[4] + 2 * losses[5]) / 6);
  EXPECT_EQ(steps[0].loss.at("cls"), steps[0].loss.total());
  EXPECT_EQ(steps[1].loss.at("con"), 0);
  EXPECT_EQ(steps[1].step_in_epoch, 2);
  EXPECT_EQ(steps[1].steps_per_epoch, 2);
  const EpochRecord& epoch = recorder.epochs[0];
  EXPECT_DOUBLE_EQ(epoch.loss.total(), (16 * steps[0].loss.total() + 6 * steps[1].loss.total()) / 22);
  EXPECT_DOUBLE_EQ(epoch.grad_norm, (steps[0].grad_norm + steps[1].grad_norm) / 2);
  EXPECT_EQ(epoch.samples, 22);
  EXPECT_EQ(epoch.lr, steps[1].lr);
}

TEST(Trainer, GivesEveryBatchOfTheRunMasksOfItsOwn) {
  TrainerConfig config = toy_config();
  config.grad_accum = 4;
  Recorder recorder;
  ToyRun run(config, recorder);
  std::vector<std::uint32_t> numbers;
  run.model.after_backward = [&](const ParameterStore&, const StepRandom& random, const Tensor&) {
    EXPECT_EQ(random.seed, config.seed);
    numbers.push_back(random.step);
  };
  (void)run.trainer.run();
  ASSERT_THAT(numbers, SizeIs(18));
  for (std::uint32_t i = 0; i < 18; ++i) EXPECT_EQ(numbers[i], i);
}

TEST(Trainer, ABatchWithoutAGoodSampleIsPassedOver) {
  TrainerConfig config = toy_config();
  config.epochs = 1;
  Recorder recorder;
  ToyRun run(config, recorder, {.train = {.samples = 12, .batch_size = 4, .shuffle = false}});
  run.train.bad = {1, 4, 5, 6, 7};  // the whole of the second batch
  (void)run.trainer.run();
  ASSERT_THAT(recorder.epochs, SizeIs(1));
  EXPECT_EQ(recorder.epochs[0].samples, 7);
  EXPECT_EQ(recorder.epochs[0].bad_samples, 5);
  EXPECT_EQ(recorder.epochs[0].bad_steps, 0);
  EXPECT_TRUE(std::isfinite(recorder.epochs[0].loss.total()));
}

TEST(Trainer, AnEpochThatEndsTooSoonIsADefect) {
  class Short : public ToySource {
   public:
    using ToySource::ToySource;
    [[nodiscard]] std::int64_t batches_per_epoch() const override {
      return ToySource::batches_per_epoch() + 1;
    }
  };
  TrainerConfig config = toy_config();
  config.no_val = true;
  const ToyModel model;
  Short source(test::toy_training());
  const auto device = make_cpu_device(1);
  Recorder recorder;
  const model::DetectionTask task(1);
  Trainer trainer(config, model, task, source, nullptr, *device, recorder);
  EXPECT_THAT(message_of<InternalError>([&] { (void)trainer.run(); }), HasSubstr("6 batches of 7"));
}

class BadStep : public testing::TestWithParam<double> {};

TEST_P(BadStep, IsSkippedCountedAndTold) {
  TrainerConfig config = toy_config();
  config.log_every = 0;
  Recorder recorder;
  ToyRun run(config, recorder);
  run.model.after_backward = [](const ParameterStore& parameters, const StepRandom& random, const Tensor&) {
    if (random.step == 2 || random.step == 3 || random.step == 8)
      set_first(parameters.gradient(kHiddenBias), GetParam());
  };
  std::vector<std::string> bits;
  recorder.progress = [&](const StepRecord& record) {
    bits.push_back(bits_of(run.trainer.parameters()));
    const bool bad = record.step == 3 || record.step == 4 || record.step == 9;
    EXPECT_EQ(record.skipped, bad) << record.step;
    EXPECT_EQ(std::isfinite(record.grad_norm), !bad);
    if (record.step > 1) {
      EXPECT_EQ(bits.back() == bits[bits.size() - 2], bad) << record.step;
    }
  };
  const TrainingResult result = run.trainer.run();
  EXPECT_EQ(result.bad_steps, 3);
  EXPECT_EQ(result.step, 18);
  EXPECT_EQ(recorder.epochs[0].bad_steps, 2);
  EXPECT_EQ(recorder.epochs[1].bad_steps, 1);
  EXPECT_EQ(recorder.epochs[2].bad_steps, 0);
  EXPECT_EQ(recorder.epochs[0].samples, 14);
  EXPECT_TRUE(std::isfinite(recorder.epochs[0].grad_norm));
  EXPECT_EQ(recorder.last_told->optimizer_steps, 15);
  // Each is a line of the metrics and a message, whatever --log_every says.
  EXPECT_THAT(recorder.calls, Contains("step 3"));
  EXPECT_THAT(recorder.calls, Not(Contains("step 2")));
  EXPECT_THAT(recorder.messages,
              ElementsAre(AllOf(HasSubstr("step 3"), HasSubstr("skipped"), HasSubstr("1 in a row")),
                          AllOf(HasSubstr("step 4"), HasSubstr("2 in a row")),
                          AllOf(HasSubstr("step 9"), HasSubstr("1 in a row"))));
}

TEST(Trainer, AStepWithoutASampleMovesNothingAndIsNoBadStep) {
  TrainerConfig config = toy_config();
  config.epochs = 1;
  Recorder recorder;
  ToyRun::Setup setup;
  setup.train.shuffle = false;
  ToyRun run(config, recorder, setup);
  run.train.bad = {4, 5, 6, 7};  // the second batch
  std::vector<std::string> bits;
  recorder.progress = [&](const StepRecord& record) {
    bits.push_back(bits_of(run.trainer.parameters()));
    EXPECT_FALSE(record.skipped);
    if (record.step > 1) {
      EXPECT_EQ(bits.back() == bits[bits.size() - 2], record.step == 2) << record.step;
    }
  };
  const TrainingResult result = run.trainer.run();
  EXPECT_EQ(result.bad_steps, 0);
  EXPECT_EQ(result.step, 6);
  EXPECT_EQ(recorder.last_told->optimizer_steps, 5);
  EXPECT_TRUE(std::isfinite(recorder.epochs[0].loss.total()));
}

INSTANTIATE_TEST_SUITE_P(Values, BadStep,
                         testing::Values(std::numeric_limits<double>::quiet_NaN(),
                                         std::numeric_limits<double>::infinity(),
                                         -std::numeric_limits<double>::infinity()),
                         [](const auto& instance) {
                           return std::isnan(instance.param) ? "NaN"
                                  : instance.param > 0       ? "Inf"
                                                             : "MinusInf";
                         });

TEST(Trainer, TooManyBadStepsInARowEndTheRunNamingTheFirstParameter) {
  TrainerConfig config = toy_config();
  config.max_bad_steps = 3;
  Recorder recorder;
  ToyRun run(config, recorder);
  run.model.after_backward = [](const ParameterStore& parameters, const StepRandom& random, const Tensor&) {
    if (random.step < 5) return;
    // Backward finishes the output layer first: what broke there spreads to the others.
    set_first(parameters.gradient(3), std::nan(""));
    set_first(parameters.gradient(0), std::nan(""));
  };
  EXPECT_THAT(
      message_of<DataError>([&] { (void)run.trainer.run(); }),
      AllOf(HasSubstr("3 steps in a row"), HasSubstr("step 8"), HasSubstr("output.bias"), HasSubstr("--lr")));
}

TEST(Trainer, AGoodStepBetweenBadOnesStartsTheCountAnew) {
  TrainerConfig config = toy_config();
  config.max_bad_steps = 2;
  Recorder recorder;
  ToyRun run(config, recorder);
  run.model.after_backward = [](const ParameterStore& parameters, const StepRandom& random, const Tensor&) {
    if (random.step % 2 == 0) set_first(parameters.gradient(0), std::nan(""));
  };
  EXPECT_EQ(run.trainer.run().bad_steps, 9);
}

TEST(Trainer, ALossThatIsNotFiniteIsABadStepToo) {
  TrainerConfig config = toy_config();
  config.max_bad_steps = 1;
  Recorder recorder;
  ToyRun run(config, recorder);
  run.model.after_backward = [](const ParameterStore&, const StepRandom&, Tensor losses) {
    losses.as<float>()[2] = std::numeric_limits<float>::infinity();
  };
  const std::string before = bits_of(run.trainer.parameters());
  EXPECT_THAT(message_of<DataError>([&] { (void)run.trainer.run(); }),
              HasSubstr("first parameter without a finite gradient: none"));
  EXPECT_TRUE(bits_of(run.trainer.parameters()) == before);
}

TEST(Trainer, OneBadBatchSpoilsTheStepItIsAccumulatedIn) {
  TrainerConfig config = toy_config();
  config.grad_accum = 3;
  Recorder recorder;
  ToyRun run(config, recorder);
  run.model.after_backward = [](const ParameterStore& parameters, const StepRandom& random, const Tensor&) {
    if (random.step == 4) set_first(parameters.gradient(0), std::nan(""));
  };
  (void)run.trainer.run();
  EXPECT_THAT(recorder.messages, ElementsAre(StartsWith("step 2:")));
}

TEST(Trainer, TellsInOrder) {
  TrainerConfig config = toy_config();
  config.epochs = 2;
  config.log_every = 4;
  config.select_by = "loss";
  Recorder recorder;
  ToyRun run(config, recorder);
  (void)run.trainer.run();
  EXPECT_THAT(recorder.calls, ElementsAre("start 0 0", "step 4", "best 1", "epoch 1", "step 8", "step 12",
                                          "best 2", "epoch 2", "last 2"));
  EXPECT_TRUE(recorder.best_bits == recorder.last_bits);
}

TEST(Trainer, StopsAfterMaxStepsWithAnEvaluation) {
  for (const std::int64_t max_steps : {1, 6, 8, 12, 1000}) {
    TrainerConfig config = toy_config();
    config.max_steps = max_steps;
    config.eval_every = 5;
    Recorder recorder;
    ToyRun run(config, recorder);
    const TrainingResult result = run.trainer.run();
    EXPECT_EQ(result.step, std::min<std::int64_t>(max_steps, 18));
    EXPECT_EQ(result.epochs, std::min<std::int64_t>(max_steps / 6, 3));
    EXPECT_EQ(recorder.epochs.size(), static_cast<std::size_t>((result.step + 5) / 6));
    EXPECT_EQ(recorder.epochs.back().step, result.step);
    EXPECT_FALSE(recorder.epochs.back().val.empty());
    EXPECT_EQ(recorder.last_told->val->step, result.step);
    EXPECT_EQ(recorder.last_told->epoch, recorder.epochs.back().epoch);
  }
}

TEST(Trainer, EvaluatesEverySoManyEpochsAndTheLast) {
  TrainerConfig config = toy_config();
  config.epochs = 7;
  config.eval_every = 3;
  Recorder recorder;
  ToyRun run(config, recorder);
  const TrainingResult result = run.trainer.run();
  std::vector<std::int64_t> evaluated;
  for (const EpochRecord& record : recorder.epochs) {
    if (!record.val.empty()) evaluated.push_back(record.epoch);
    EXPECT_EQ(to_json(record).contains("val_loss"), !record.val.empty());
  }
  EXPECT_THAT(evaluated, ElementsAre(3, 6, 7));
  EXPECT_EQ(result.last->epoch, 7);
}

TEST(Trainer, FollowsItsSchedule) {
  TrainerConfig config = toy_config();
  config.grad_accum = 4;
  Recorder recorder;
  std::vector<double> rates;
  recorder.progress = [&](const StepRecord& record) { rates.push_back(record.lr); };
  ToyRun run(config, recorder);
  (void)run.trainer.run();
  const Schedule schedule(
      {.kind = ScheduleKind::kStep, .lr = config.lr, .epochs = 3, .warmup_epochs = 1, .steps_per_epoch = 2});
  ASSERT_THAT(rates, SizeIs(6));
  for (std::size_t i = 0; i < 6; ++i)
    EXPECT_EQ(rates[i], schedule.at(static_cast<std::int64_t>(i / 2), static_cast<std::int64_t>(i % 2)));
}

TEST(Trainer, WithoutAValidationSplitSelectsNothing) {
  TrainerConfig config = toy_config();
  config.no_val = true;
  Recorder recorder;
  ToyRun run(config, recorder);
  const TrainingResult result = run.trainer.run();
  EXPECT_FALSE(result.best);
  EXPECT_FALSE(result.last);
  EXPECT_FALSE(recorder.last_told->val);
  for (const EpochRecord& record : recorder.epochs) EXPECT_FALSE(!record.val.empty() || record.best);
  EXPECT_THAT(recorder.calls, Not(Contains(StartsWith("best"))));
  EXPECT_THAT(recorder.messages, IsEmpty());
}

TEST(Trainer, StepsAndEvaluationsAllocateNothing) {
  TrainerConfig config = toy_config();
  config.epochs = 4;
  config.log_every = 0;
  config.grad_accum = 2;
  Recorder recorder;
  ToyRun run(config, recorder);
  const auto held = run.device->lines().size();
  std::vector<std::int64_t> counts;
  counts.reserve(100);
  std::vector<std::int64_t> places;
  places.reserve(100);
  recorder.progress = [&](const StepRecord& record) {
    counts.push_back(voca::test::allocations());
    places.push_back(record.step_in_epoch);
  };
  (void)run.trainer.run();
  ASSERT_THAT(counts, SizeIs(12));
  for (std::size_t i = 1; i < counts.size(); ++i) {
    if (places[i] == 1) {
      EXPECT_GT(counts[i], counts[i - 1]) << "the counter counts: records of an epoch are made";
    } else {
      EXPECT_EQ(counts[i], counts[i - 1]) << "step " << i + 1;
    }
  }
  EXPECT_EQ(run.device->lines().size(), held);
}

}  // namespace
}  // namespace voca::engine
