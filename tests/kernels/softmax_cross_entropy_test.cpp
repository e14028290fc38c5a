#include "kernels/softmax_cross_entropy.h"

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

std::vector<int> some_labels(std::int64_t rows, std::int64_t classes) {
  std::vector<int> labels;
  for (std::int64_t i = 0; i < rows; ++i) labels.push_back(static_cast<int>(i * 5 % classes));
  return labels;
}

struct Result {
  std::vector<double> loss, row_losses, dlogits;
};

template <typename C>
class SoftmaxCrossEntropyTest : public OpTest<C> {
 protected:
  using Element = typename C::Element;

  Result compute(const std::vector<double>& logits, const std::vector<int>& labels, double smoothing,
                 double grad) {
    const auto rows = static_cast<std::int64_t>(labels.size());
    const auto classes = static_cast<std::int64_t>(logits.size()) / rows;
    auto x = this->input(logits);
    auto y = this->template input<std::int32_t>(labels);
    auto loss_scale = this->template input<float>(std::vector<double>{kLossScale});
    auto loss = this->template output<Stat<Element>>(1);
    auto row_losses = this->template output<Stat<Element>>(rows);
    auto dlogits = this->output(rows * classes);
    softmax_cross_entropy<Element>(typename C::Backend{},
                                   {rows, classes, smoothing, grad / kLossScale, loss_scale.data(), x.data(),
                                    y.data(), loss.data(), row_losses.data(), dlogits.data()});
    auto loss_alone = this->template output<Stat<Element>>(1);
    softmax_cross_entropy<Element>(typename C::Backend{}, {rows, classes, smoothing, grad, nullptr, x.data(),
                                                           y.data(), loss_alone.data(), nullptr, nullptr});
    EXPECT_EQ(normalised_error(loss_alone.raw(), loss.values()), 0);
    return {loss.values(), row_losses.values(), dlogits.values()};
  }
};
TYPED_TEST_SUITE(SoftmaxCrossEntropyTest, Cases);

TYPED_TEST(SoftmaxCrossEntropyTest, MatchesTheDefinition) {
  using Number = typename TypeParam::Element;
  constexpr std::int64_t shapes[][2] = {{1, 2}, {7, 2}, {64, 3}, {5, 4}, {3, 1009}, {257, 7}};
  for (const auto& [rows, classes] : shapes) {
    for (const double smoothing : {0.0, 0.1, 1.0}) {
      const std::vector<double> x = rounded_to<Number>(random_values(rows * classes, 1, -5, 5));
      const std::vector<int> labels = some_labels(rows, classes);
      const Result got = this->compute(x, labels, smoothing, 0.75);
      std::vector<double> row_losses;
      std::vector<double> gradient;
      double total = 0;
      for (std::int64_t i = 0; i < rows; ++i) {
        // Long double, so that the sum over many classes does not depend on the order of additions.
        std::vector<long double> e;
        long double sum = 0;
        for (std::int64_t k = 0; k < classes; ++k) {
          e.push_back(std::exp(static_cast<long double>(x[static_cast<std::size_t>(i * classes + k)])));
          sum += e.back();
        }
        long double loss = 0;
        for (std::int64_t k = 0; k < classes; ++k) {
          const long double p = e[static_cast<std::size_t>(k)] / sum;
          const double target = (k == labels[static_cast<std::size_t>(i)] ? 1 - smoothing : 0) +
                                smoothing / static_cast<double>(classes);
          if (target > 0) loss -= target * std::log(p);
          gradient.push_back(static_cast<double>(0.75L * (p - target) / rows));
        }
        row_losses.push_back(static_cast<double>(loss));
        total += row_losses.back();
      }
      const double tolerance = kReduction.of<Number>();
      EXPECT_LE(normalised_error(got.row_losses, row_losses), tolerance);
      EXPECT_LE(normalised_error(got.dlogits, gradient), this->allowed_error(gradient, kReduction));
      EXPECT_LE(normalised_error(got.loss, {total / static_cast<double>(rows)}), tolerance);
    }
  }
}

TYPED_TEST(SoftmaxCrossEntropyTest, ExtremeLogitsGiveFiniteRightLosses) {
  const double tolerance = kElementwise.of<typename TypeParam::Element>();
  const Result got = this->compute({8192, -8192, 0, 8192, -8192, 0, -8192, -8192, -8192}, {0, 1, 2}, 0, 3);
  const std::vector<double> gradient = {0, 0, 0, 1, -1, 0, 1.0 / 3, 1.0 / 3, -2.0 / 3};
  EXPECT_LE(normalised_error(got.row_losses, {0, 16384, std::log(3)}), tolerance);
  EXPECT_LE(normalised_error(got.dlogits, gradient), this->allowed_error(gradient, kElementwise));
  const Result smooth = this->compute({8192, -8192}, {0}, 0.1, 1);
  EXPECT_LE(normalised_error(smooth.row_losses, {819.2}), tolerance);
  EXPECT_LE(normalised_error(smooth.dlogits, {0.05, -0.05}),
            this->allowed_error({0.05, -0.05}, kElementwise));
}

TYPED_TEST(SoftmaxCrossEntropyTest, LossesOfCertainRowsKeepTheirDigits) {
  const Result got = this->compute({30, 0}, {0}, 0, 1);
  EXPECT_LE(normalised_error(got.row_losses, {std::log1p(std::exp(-30.0))}), 1e-2);
  EXPECT_GT(got.row_losses[0], 0);
}

TYPED_TEST(SoftmaxCrossEntropyTest, NanAndUnknownLabelsShow) {
  for (const double smoothing : {0.0, 0.1}) {
    const Result got = this->compute({NAN, 1, 1, NAN, 1, 2, 1, 2, 0, 0}, {1, 0, -1, 2, 0}, smoothing, 5);
    EXPECT_TRUE(std::isnan(got.loss[0]));
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_TRUE(std::isnan(got.row_losses[i])) << i;
      EXPECT_TRUE(std::isnan(got.dlogits[2 * i]) && std::isnan(got.dlogits[2 * i + 1])) << i;
    }
    EXPECT_FLOAT_EQ(static_cast<float>(got.row_losses[4]), std::log(2.0F));
  }
}

TYPED_TEST(SoftmaxCrossEntropyTest, SameBitsForAnyThreadCount) {
  this->expect_same_bits_for_any_thread_count([&] {
    const Result result =
        this->compute(random_values(std::int64_t{503} * 7, 2, -5, 5), some_labels(503, 7), 0.1, 1);
    return concatenate(concatenate(result.loss, result.row_losses), result.dlogits);
  });
}

template <typename C>
class SoftmaxCrossEntropyGradient : public SoftmaxCrossEntropyTest<C> {};
TYPED_TEST_SUITE(SoftmaxCrossEntropyGradient, DoubleCases);

TYPED_TEST(SoftmaxCrossEntropyGradient, MatchesFiniteDifferences) {
  const std::vector<double> x = random_values(15, 3, -3, 3);
  const std::vector<int> labels = some_labels(3, 5);
  const auto loss = [&](const std::vector<double>& point) {
    return 0.5 * this->compute(point, labels, 0.1, 0).loss[0];
  };
  expect_gradient(loss, x, this->compute(x, labels, 0.1, 0.5).dlogits, "dlogits");
}

}  // namespace
}  // namespace voca::kernels::testing
