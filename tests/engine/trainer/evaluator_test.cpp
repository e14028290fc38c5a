#include "engine/trainer/evaluator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "model/tasks/detection.h"
#include "tests/engine/support/files.h"
#include "tests/engine/support/toy.h"
#include "tests/support/allocations.h"

namespace voca::engine {
namespace {

using test::message_of;
using test::ToyModel;
using test::ToySource;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

/// A model with weights of its own and a source of eleven samples.
struct ToyEvaluation {
  ToyModel model;
  ToySource source;
  std::unique_ptr<Device> device = make_cpu_device(1);
  Workspace workspace;

  explicit ToyEvaluation(std::int64_t outputs = 1, bool shuffle = false, std::int64_t batch_size = 4)
      : model(outputs),
        source({.samples = 11,
                .batch_size = batch_size,
                .classes = outputs == 1 ? 2 : outputs,
                .shuffle = shuffle,
                .compute_type = DType::kF64}),
        workspace(model, {.compute_type = DType::kF64, .eval_batch = batch_size}, *device) {
    workspace.parameters().initialise(3);
  }
  Predictions run(bool losses = true) { return *Evaluator(model, source, workspace, losses).run(); }
};

const std::vector<double>& logits_of(const Predictions& predictions) {
  return predictions.output(model::kLogits).values;
}

const std::vector<double>& labels_of(const Predictions& predictions) {
  return predictions.target(model::kLabel).values;
}

TEST(Evaluator, SeesEverySampleOnceInTheOrderOfTheDataset) {
  for (const bool shuffle : {false, true}) {
    for (const std::int64_t outputs : {1, 3}) {
      ToyEvaluation evaluation(outputs, shuffle);
      const Predictions predictions = evaluation.run();
      const PredictionColumn& logits = predictions.output(model::kLogits);
      EXPECT_EQ(logits.width, outputs);
      ASSERT_EQ(predictions.size(), 11);
      std::vector<std::int64_t> all(11);
      std::iota(all.begin(), all.end(), 0);
      EXPECT_EQ(predictions.samples, all);
      for (std::int64_t i = 0; i < 11; ++i)
        EXPECT_EQ(predictions.target(model::kLabel).values[static_cast<std::size_t>(i)],
                  evaluation.source.label(i));
      // Alone in its batch and in another place each sample is predicted the same.
      ToyEvaluation one_by_one(outputs, !shuffle, 1);
      const Predictions alone = one_by_one.run();
      ASSERT_THAT(logits.values, SizeIs(11 * outputs));
      for (std::size_t i = 0; i < logits.values.size(); ++i)
        EXPECT_NEAR(logits.values[i], alone.output(model::kLogits).values[i], 1e-13);
      for (std::size_t i = 0; i < 11; ++i) EXPECT_NEAR(predictions.losses[i], alone.losses[i], 1e-13);
    }
  }
}

TEST(Evaluator, LossesAreTheCrossEntropiesOfItsLogits) {
  ToyEvaluation binary(1);
  const Predictions two = binary.run();
  for (std::size_t i = 0; i < 11; ++i) {
    const double sign = labels_of(two)[i] == 1 ? -1 : 1;
    EXPECT_NEAR(two.losses[i], std::log1p(std::exp(sign * logits_of(two)[i])), 1e-12);
  }
  ToyEvaluation classes(3);
  const Predictions three = classes.run();
  const std::vector<double> probability = model::probabilities(three);
  for (std::size_t i = 0; i < 11; ++i)
    EXPECT_NEAR(three.losses[i],
                -std::log(probability[3 * i + static_cast<std::size_t>(labels_of(three)[i])]), 1e-12);
}

TEST(Evaluator, WithoutLossesReadsNoLabels) {
  ToyEvaluation evaluation;
  const Predictions with = evaluation.run();
  ToySource unlabelled({.samples = 11,
                        .batch_size = 4,
                        .shuffle = false,
                        .compute_type = DType::kF64,
                        .label = [](std::int64_t) { return -1; }});
  const Predictions without = *Evaluator(evaluation.model, unlabelled, evaluation.workspace, false).run();
  EXPECT_THAT(without.losses, IsEmpty());
  EXPECT_EQ(logits_of(without), logits_of(with));
  EXPECT_THAT(labels_of(without), testing::Each(-1));
  EXPECT_THAT(message_of<DataError>([&] { (void)model::measure(without); }),
              AllOf(HasSubstr("sample 0"), HasSubstr("no label")));
}

TEST(Evaluator, RunsAgainWithoutAllocating) {
  for (const bool shuffle : {false, true}) {
    ToyEvaluation evaluation(3, shuffle);
    Evaluator evaluator(evaluation.model, evaluation.source, evaluation.workspace, true);
    const std::int64_t before = voca::test::allocations();
    const Predictions* const first = evaluator.run();
    const double logit = logits_of(*first)[5];
    const Predictions* const second = evaluator.run();
    EXPECT_EQ(voca::test::allocations(), before);
    EXPECT_EQ(second->size(), 11);
    EXPECT_EQ(logits_of(*second)[5], logit);
  }
}

TEST(Evaluator, StopsBetweenBatchesWhenAsked) {
  ToyEvaluation evaluation;
  Evaluator evaluator(evaluation.model, evaluation.source, evaluation.workspace, true);
  int asked = 0;
  EXPECT_EQ(evaluator.run([&] { return ++asked == 2; }), nullptr);
  EXPECT_EQ(asked, 2);
  ASSERT_NE(evaluator.run(), nullptr);
  EXPECT_EQ(evaluator.run()->size(), 11);
}

TEST(Evaluator, BadSamplesAreLeftOut) {
  ToyEvaluation evaluation;
  evaluation.source.bad = {0, 4, 5, 6, 7};  // a whole batch among them
  const Predictions predictions = evaluation.run();
  EXPECT_THAT(predictions.samples, ElementsAre(1, 2, 3, 8, 9, 10));
  EXPECT_THAT(logits_of(predictions), SizeIs(6));
}

TEST(Evaluator, ASampleTwiceOrLeftOutIsADefect) {
  ToyEvaluation evaluation;
  evaluation.source.replace = [](std::int64_t place, std::int64_t sample) { return place == 7 ? 2 : sample; };
  EXPECT_THAT(message_of<InternalError>([&] { (void)evaluation.run(); }), HasSubstr("sample 2 came twice"));
  class Forgetful : public ToySource {
   public:
    using ToySource::ToySource;
    [[nodiscard]] std::int64_t bad_samples() const override { return 0; }
  };
  Forgetful source({.samples = 11, .batch_size = 4, .compute_type = DType::kF64});
  source.bad = {3};
  EXPECT_THAT(message_of<InternalError>(
                  [&] { (void)Evaluator(evaluation.model, source, evaluation.workspace, true).run(); }),
              HasSubstr("10 samples of 11"));
}

}  // namespace
}  // namespace voca::engine
