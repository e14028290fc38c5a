#include "engine/trainer/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/engine/support/files.h"
#include "tests/engine/trainer/trainer_support.h"

namespace voca::engine {
namespace {

using test::message_of;
using test::Recorder;
using test::toy_config;
using test::ToyModel;
using test::ToyRun;
using test::ToySource;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string refusal_of(const TrainerConfig& config, const ToyRun::Setup& setup = {}) {
  return message_of<UsageError>([&] {
    Recorder recorder;
    const ToyRun run(config, recorder, setup);
  });
}

TEST(TrainerOptions, RefusesEmptySplitsSayingWhatToDo) {
  ToyRun::Setup setup;
  setup.train.samples = 0;
  EXPECT_THAT(refusal_of(toy_config(), setup),
              AllOf(HasSubstr("training split is empty"), HasSubstr("--split_ratios")));
  setup = {};
  setup.val.samples = 0;
  EXPECT_THAT(refusal_of(toy_config(), setup),
              AllOf(HasSubstr("validation split is empty"), HasSubstr("--no_val")));
  const ToyModel model;
  ToySource train(test::toy_training());
  const auto device = make_cpu_device(1);
  Recorder recorder;
  EXPECT_THAT(message_of<UsageError>([&] {
                const Trainer t(toy_config(), model, model::DetectionTask(1), train, nullptr, *device,
                                recorder);
              }),
              HasSubstr("--no_val"));
}

TEST(TrainerOptions, RefusesNumbersThatNoRunCanBeMadeWith) {
  const std::vector<std::function<void(TrainerConfig&)>> wrong{
      [](TrainerConfig& c) { c.epochs = 0; },
      [](TrainerConfig& c) { c.max_steps = -1; },
      [](TrainerConfig& c) { c.grad_accum = 0; },
      [](TrainerConfig& c) { c.max_bad_steps = 0; },
      [](TrainerConfig& c) { c.eval_every = 0; },
      [](TrainerConfig& c) { c.log_every = -1; },
      [](TrainerConfig& c) { c.checkpoint_every.count = -1; },
      [](TrainerConfig& c) { c.keep = 0; },
      [](TrainerConfig& c) { c.optimizer.adamw.weight_decay = -0.1; },
      [](TrainerConfig& c) { c.optimizer.adamw.weight_decay = std::nan(""); },
      [](TrainerConfig& c) { c.optimizer.max_grad_norm = -1; },
      [](TrainerConfig& c) { c.lr = -1; },
      [](TrainerConfig& c) { c.warmup_epochs = -1; },
  };
  for (const auto& change : wrong) {
    TrainerConfig config = toy_config();
    change(config);
    EXPECT_FALSE(message_of<InternalError>([&] {
                   Recorder recorder;
                   const ToyRun run(config, recorder);
                 }).empty());
  }
  TrainerConfig narrow = toy_config();
  narrow.compute_type = DType::kBF16;
  EXPECT_THAT(refusal_of(narrow), StartsWith("--precision"));
}

TEST(TrainerOptions, RefusesAMeasureThatTheTaskLeavesUndefined) {
  TrainerConfig config = toy_config();
  config.select_by = "ap";
  EXPECT_THAT(refusal_of(config, {.outputs = 3}), AllOf(StartsWith("--select_by ap"), HasSubstr("has 3")));
}

TEST(TrainerOptions, ReadBack) {
  TrainerConfig config = toy_config();
  config.select_by = "f1";
  EXPECT_THAT(refusal_of(config), AllOf(StartsWith("--select_by"), HasSubstr("f1")));
  const auto interval = [](std::string_view text) {
    const Interval parsed = Interval::parse(text).value();
    return std::pair(parsed.count, parsed.in_steps);
  };
  EXPECT_EQ(interval("500steps"), std::pair(std::int64_t{500}, true));
  EXPECT_EQ(interval("2epochs"), std::pair(std::int64_t{2}, false));
  EXPECT_EQ(interval("2"), std::pair(std::int64_t{2}, false));
  EXPECT_EQ(interval("0"), std::pair(std::int64_t{0}, false));
  for (const char* text : {"", "steps", "-1", "1.5", "2 steps", "2days", "99999999999999999999"})
    EXPECT_FALSE(Interval::parse(text)) << text;
  for (const char* text : {"500steps", "2epochs"}) EXPECT_EQ(Interval::parse(text).value().text(), text);
}

}  // namespace
}  // namespace voca::engine
