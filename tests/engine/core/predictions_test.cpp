#include "engine/core/predictions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "tests/engine/support/files.h"
#include "tests/engine/support/predictions.h"

namespace voca::engine {
namespace {

using test::message_of;
using test::of_logits;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(MeanOutputs, IsTheMeanOverTheSameSamples) {
  Predictions first = of_logits({1, 2, 3});
  first.losses = {1, 1, 1};
  const Predictions average = mean_outputs({first, of_logits({3, -2, 0}), of_logits({2, 0, 0})});
  EXPECT_THAT(average.output("logits").values, ElementsAre(2, 0, 1));
  EXPECT_EQ(average.target("label").values, first.target("label").values);
  EXPECT_EQ(average.samples, first.samples);
  EXPECT_THAT(average.losses, IsEmpty());
  EXPECT_THAT(mean_outputs({first}).output("logits").values, ElementsAre(1, 2, 3));
}

TEST(MeanOutputs, RefusesOtherSamplesAndClasses) {
  const Predictions first = of_logits({1, 2, 3, 4});
  Predictions moved = first;
  moved.samples[3] = 9;
  EXPECT_THAT(message_of<DataError>([&] {
                (void)mean_outputs({first, first, moved});
              }),
              AllOf(HasSubstr("checkpoint 3"), HasSubstr("same samples")));
  EXPECT_THROW((void)mean_outputs({first, of_logits({1, 2, 3, 4}, 2)}), DataError);
  EXPECT_THROW((void)mean_outputs({first, of_logits({1, 2, 3})}), DataError);
}

TEST(Predictions, AnUnknownColumnIsADefect) {
  EXPECT_THAT(message_of<InternalError>([] { (void)of_logits({1}).output("label"); }),
              HasSubstr("\"label\""));
  EXPECT_THROW((void)of_logits({1}).target("logits"), InternalError);
}

}  // namespace
}  // namespace voca::engine
