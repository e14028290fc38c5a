#include "engine/trainer/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/trainer/evaluator.h"
#include "tests/engine/trainer/trainer_support.h"

namespace voca::engine {
namespace {

using test::Recorder;
using test::toy_config;
using test::ToyRun;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

struct Selected {
  std::string by;
  std::int64_t outputs;
};

class BestCheckpoint : public testing::TestWithParam<Selected> {};

TEST_P(BestCheckpoint, IsTheEarliestOfTheBestByItsMeasure) {
  TrainerConfig config = toy_config();
  config.epochs = 15;
  config.lr = 0.3;  // learns by heart, so that val gets worse again
  config.select_by = GetParam().by;
  Recorder recorder;
  ToyRun run(config, recorder, {.outputs = GetParam().outputs});
  const TrainingResult result = run.trainer.run();
  std::optional<double> best;
  std::int64_t best_epoch = -1;
  int refused = 0;
  int ties = 0;
  for (const EpochRecord& record : recorder.epochs) {
    const double value = record.summary->measure(config.select_by).value();
    const bool better = !best || (config.select_by == "loss" ? value < *best : value > *best);
    ties += best && value == *best ? 1 : 0;
    EXPECT_EQ(record.best, better) << record.epoch;
    refused += better ? 0 : 1;
    if (!better) continue;
    best = value;
    best_epoch = record.epoch;
  }
  ASSERT_TRUE(result.best);
  EXPECT_EQ(result.best->epoch, best_epoch);
  EXPECT_EQ(result.best->step, 6 * best_epoch);
  EXPECT_EQ(result.best->measure(config.select_by), best);
  EXPECT_GT(refused, 0);
  if (config.select_by == "acc") {
    EXPECT_GT(ties, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Measures, BestCheckpoint,
                         testing::Values(Selected{"auc", 1}, Selected{"acc", 1}, Selected{"ap", 1},
                                         Selected{"loss", 1}, Selected{"auc", 3}, Selected{"acc", 3},
                                         Selected{"loss", 3}),
                         [](const auto& instance) {
                           return fmt::format("{}Of{}", instance.param.by, instance.param.outputs);
                         });

TEST(Selecting, SummarisesWhatItMeasured) {
  TrainerConfig config = toy_config();
  config.epochs = 1;
  Recorder recorder;
  ToyRun run(config, recorder);
  (void)run.trainer.run();
  const EpochRecord& record = recorder.epochs[0];
  const Predictions predictions =
      *Evaluator(run.model, run.val, run.trainer.workspace(), /*losses=*/true).run();
  const std::vector<MeasuredValue> measured = run.task.validate(predictions);
  const auto line = to_json(record);
  std::size_t kept = 0;
  for (const MeasuredValue& value : measured) {
    if (!value.record.empty()) {
      EXPECT_EQ(line[std::string(value.record)], value.value.value()) << value.record;
    }
    if (value.name.empty()) continue;
    ++kept;
    EXPECT_EQ(record.summary->measure(value.name), value.value) << value.name;
  }
  EXPECT_EQ(record.summary->measures.size(), kept);
  EXPECT_TRUE(record.summary->measure("auc"));
  EXPECT_TRUE(record.summary->measure("threshold"));
  EXPECT_EQ(line["best"], true);
}

TEST(Selecting, AnUndefinedMeasureSelectsNothingAndSaysSo) {
  for (const std::string by : {"auc", "ap"}) {
    TrainerConfig config = toy_config();
    config.epochs = 2;
    config.select_by = by;
    Recorder recorder;
    ToyRun::Setup setup;
    setup.val.label = [](std::int64_t) { return 0; };
    ToyRun run(config, recorder, setup);
    const TrainingResult result = run.trainer.run();
    EXPECT_FALSE(result.best);
    EXPECT_TRUE(result.last->measure("acc"));
    EXPECT_THAT(recorder.calls, Not(Contains(StartsWith("best"))));
    EXPECT_THAT(
        recorder.messages,
        ElementsAre(AllOf(StartsWith("epoch 1"), HasSubstr(by + " is not defined")), StartsWith("epoch 2")));
    EXPECT_TRUE(to_json(recorder.epochs[0])["val_auc"].is_null());
  }
}

TEST(Selecting, OneClassIsEnoughForAccuracyAndLoss) {
  for (const std::string by : {"acc", "loss"}) {
    TrainerConfig config = toy_config();
    config.select_by = by;
    Recorder recorder;
    ToyRun::Setup setup;
    setup.val.label = [](std::int64_t) { return 1; };
    ToyRun run(config, recorder, setup);
    EXPECT_TRUE(run.trainer.run().best);
    EXPECT_THAT(recorder.messages, IsEmpty());
  }
}

}  // namespace
}  // namespace voca::engine
