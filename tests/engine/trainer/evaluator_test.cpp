#include "engine/trainer/evaluator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "tests/engine/support/files.h"
#include "tests/engine/support/toy.h"
#include "tests/support/allocations.h"

namespace voca::engine {
namespace {

using test::message_of;
using test::ToyModel;
using test::ToySource;
using testing::AllOf;
using testing::DoubleEq;
using testing::DoubleNear;
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

TEST(Evaluator, SeesEverySampleOnceInTheOrderOfTheDataset) {
  for (const bool shuffle : {false, true}) {
    for (const std::int64_t outputs : {1, 3}) {
      ToyEvaluation evaluation(outputs, shuffle);
      const Predictions predictions = evaluation.run();
      EXPECT_EQ(predictions.outputs, outputs);
      ASSERT_EQ(predictions.size(), 11);
      std::vector<std::int64_t> all(11);
      std::iota(all.begin(), all.end(), 0);
      EXPECT_EQ(predictions.samples, all);
      for (std::int64_t i = 0; i < 11; ++i)
        EXPECT_EQ(predictions.labels[static_cast<std::size_t>(i)], evaluation.source.label(i));
      // Alone in its batch and in another place each sample is predicted the same.
      ToyEvaluation one_by_one(outputs, !shuffle, 1);
      const Predictions alone = one_by_one.run();
      ASSERT_THAT(predictions.logits, SizeIs(11 * outputs));
      for (std::size_t i = 0; i < predictions.logits.size(); ++i)
        EXPECT_NEAR(predictions.logits[i], alone.logits[i], 1e-13);
      for (std::size_t i = 0; i < 11; ++i) EXPECT_NEAR(predictions.losses[i], alone.losses[i], 1e-13);
    }
  }
}

TEST(Evaluator, LossesAreTheCrossEntropiesOfItsLogits) {
  ToyEvaluation binary(1);
  const Predictions two = binary.run();
  for (std::size_t i = 0; i < 11; ++i) {
    const double sign = two.labels[i] == 1 ? -1 : 1;
    EXPECT_NEAR(two.losses[i], std::log1p(std::exp(sign * two.logits[i])), 1e-12);
  }
  ToyEvaluation classes(3);
  const Predictions three = classes.run();
  const std::vector<double> probability = probabilities(three);
  for (std::size_t i = 0; i < 11; ++i)
    EXPECT_NEAR(three.losses[i], -std::log(probability[3 * i + static_cast<std::size_t>(three.labels[i])]),
                1e-12);
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
  EXPECT_EQ(without.logits, with.logits);
  EXPECT_THAT(without.labels, testing::Each(-1));
  EXPECT_THAT(message_of<DataError>([&] { (void)measure(without); }),
              AllOf(HasSubstr("sample 0"), HasSubstr("no label")));
}

TEST(Evaluator, RunsAgainWithoutAllocating) {
  for (const bool shuffle : {false, true}) {
    ToyEvaluation evaluation(3, shuffle);
    Evaluator evaluator(evaluation.model, evaluation.source, evaluation.workspace, true);
    const std::int64_t before = voca::test::allocations();
    const Predictions* const first = evaluator.run();
    const double logit = first->logits[5];
    const Predictions* const second = evaluator.run();
    EXPECT_EQ(voca::test::allocations(), before);
    EXPECT_EQ(second->size(), 11);
    EXPECT_EQ(second->logits[5], logit);
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
  EXPECT_THAT(predictions.logits, SizeIs(6));
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

Predictions of_logits(std::vector<double> logits, std::int64_t outputs = 1) {
  Predictions predictions;
  predictions.outputs = outputs;
  predictions.logits = std::move(logits);
  for (std::size_t i = 0; i < predictions.logits.size() / static_cast<std::size_t>(outputs); ++i) {
    predictions.samples.push_back(static_cast<std::int64_t>(i));
    predictions.labels.push_back(static_cast<std::int32_t>(i % 2));
  }
  return predictions;
}

TEST(Probabilities, DoNotOverflow) {
  EXPECT_THAT(probabilities(of_logits({0, std::log(3), -std::log(3), 1000, -1000, -745})),
              ElementsAre(0.5, DoubleEq(0.75), DoubleEq(0.25), 1, 0,
                          DoubleNear(0, std::numeric_limits<double>::denorm_min())));
  EXPECT_THAT(probabilities(of_logits({1, 1, 1, 1e4, 1e4 - std::log(3), -1e4, 0, -1e308, 1e308}, 3)),
              ElementsAre(DoubleEq(1 / 3.0), DoubleEq(1 / 3.0), DoubleEq(1 / 3.0), DoubleNear(0.75, 1e-12),
                          DoubleNear(0.25, 1e-12), 0, 0, 0, 1));
}

TEST(AverageLogits, IsTheMeanOverTheSameSamples) {
  Predictions first = of_logits({1, 2, 3});
  first.losses = {1, 1, 1};
  const Predictions average = average_logits({first, of_logits({3, -2, 0}), of_logits({2, 0, 0})});
  EXPECT_THAT(average.logits, ElementsAre(2, 0, 1));
  EXPECT_EQ(average.labels, first.labels);
  EXPECT_EQ(average.samples, first.samples);
  EXPECT_THAT(average.losses, IsEmpty());
  EXPECT_THAT(average_logits({first}).logits, ElementsAre(1, 2, 3));
}

TEST(AverageLogits, RefusesOtherSamplesAndClasses) {
  const Predictions first = of_logits({1, 2, 3, 4});
  Predictions moved = first;
  moved.samples[3] = 9;
  EXPECT_THAT(message_of<DataError>([&] {
                (void)average_logits({first, first, moved});
              }),
              AllOf(HasSubstr("checkpoint 3"), HasSubstr("same samples")));
  EXPECT_THROW((void)average_logits({first, of_logits({1, 2, 3, 4}, 2)}), DataError);
  EXPECT_THROW((void)average_logits({first, of_logits({1, 2, 3})}), DataError);
}

TEST(Measure, IsOfTheKindOfThePredictions) {
  Predictions binary = of_logits({-1, 1, 0.5, 2});
  binary.losses = {0.25, 0.5, 0.75, 1};
  const auto two = std::get<BinaryMetrics>(measure(binary, 0.7));
  EXPECT_EQ(two.loss, 0.625);
  EXPECT_EQ(two.auc, 1);
  EXPECT_EQ(two.at_half.acc, 0.75);
  EXPECT_EQ(two.at_threshold.acc, 1);
  Predictions classes = of_logits({2, 0, 0, 2, 2, 0}, 2);
  const auto three = std::get<ClassMetrics>(measure(classes));
  EXPECT_FALSE(three.loss);
  EXPECT_EQ(three.acc, 1);
  EXPECT_THAT(message_of<DataError>([] { (void)measure(Predictions{}); }),
              HasSubstr("no sample of the split could be used"));
}

TEST(FitThreshold, IsFittedOnTwoClassesAlone) {
  const Predictions separable = of_logits({-3, -1, -2, 0, -4, 5});  // real from a logit of −1 on
  const auto threshold = fit_threshold(separable, ThresholdRule{});
  ASSERT_TRUE(threshold);
  EXPECT_EQ(std::get<BinaryMetrics>(measure(separable, *threshold)).at_threshold.acc, 1);
  EXPECT_LT(std::get<BinaryMetrics>(measure(separable, *threshold)).at_half.acc, 1);
  EXPECT_FALSE(fit_threshold(of_logits({0, 1, 1, 0}, 2), ThresholdRule{}));
  Predictions one_class = separable;
  std::fill(one_class.labels.begin(), one_class.labels.end(), 1);
  EXPECT_FALSE(fit_threshold(one_class, ThresholdRule{}));
}

}  // namespace
}  // namespace voca::engine
