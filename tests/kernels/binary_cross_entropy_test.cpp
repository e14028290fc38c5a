#include "kernels/binary_cross_entropy.h"

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

std::vector<int> alternating_labels(std::int64_t n) {
  std::vector<int> labels;
  for (std::int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int>(i * i / 3 % 2));
  return labels;
}

/// Outputs of one call.
struct Result {
  std::vector<double> loss, row_losses, dlogits;
};

template <typename C>
class BinaryCrossEntropyTest : public OpTest<C> {
 protected:
  using Element = typename C::Element;
  struct Options {
    double smoothing = 0;
    double pos_weight = 1;
    double grad = 1;
  };

  Result compute(const std::vector<double>& logits, const std::vector<int>& labels, const Options& options) {
    const auto n = static_cast<std::int64_t>(logits.size());
    auto x = this->input(logits);
    auto y = this->template input<std::int32_t>(labels);
    auto loss_scale = this->template input<float>(std::vector<double>{kLossScale});
    auto loss = this->template output<Stat<Element>>(1);
    auto row_losses = this->template output<Stat<Element>>(n);
    auto dlogits = this->output(n);
    binary_cross_entropy<Element>(
        typename C::Backend{},
        {n, options.smoothing, options.pos_weight, options.grad / kLossScale, loss_scale.data(), x.data(),
         y.data(), loss.data(), row_losses.data(), dlogits.data()});
    auto loss_alone = this->template output<Stat<Element>>(1);
    binary_cross_entropy<Element>(typename C::Backend{},
                                  {n, options.smoothing, options.pos_weight, options.grad, nullptr, x.data(),
                                   y.data(), loss_alone.data(), nullptr, nullptr});
    EXPECT_EQ(normalised_error(loss_alone.raw(), loss.values()), 0);
    return {loss.values(), row_losses.values(), dlogits.values()};
  }
};
TYPED_TEST_SUITE(BinaryCrossEntropyTest, Cases);

/// Logistic function in long double, because 1 − σ cancels.
long double sigmoid(long double x) {
  return 1 / (1 + std::exp(-x));
}

TYPED_TEST(BinaryCrossEntropyTest, MatchesTheDefinition) {
  using Number = typename TypeParam::Element;
  for (const std::int64_t n : {1, 2, 7, 64, 1009}) {
    for (const double smoothing : {0.0, 0.1, 1.0}) {
      for (const double pos_weight : {1.0, 0.25, 5.0}) {
        const std::vector<double> logits = rounded_to<Number>(random_values(n, 1, -8, 8));
        const std::vector<int> labels = alternating_labels(n);
        const Result got = this->compute(logits, labels, {smoothing, pos_weight, 0.75});
        std::vector<double> rows;
        std::vector<double> gradient;
        double sum = 0;
        for (std::size_t i = 0; i < logits.size(); ++i) {
          const long double p = sigmoid(logits[i]);
          const double t = labels[i] * (1 - smoothing) + smoothing / 2;
          rows.push_back(static_cast<double>(-(1 - t) * std::log(1 - p) - pos_weight * t * std::log(p)));
          gradient.push_back(static_cast<double>(0.75L * ((1 - t) * p - pos_weight * t * (1 - p)) / n));
          sum += rows.back();
        }
        const double tolerance = kElementwise.of<Number>();
        EXPECT_LE(normalised_error(got.row_losses, rows), tolerance);
        EXPECT_LE(normalised_error(got.dlogits, gradient), this->allowed_error(gradient, kElementwise));
        EXPECT_LE(normalised_error(got.loss, {sum / static_cast<double>(n)}), tolerance);
      }
    }
  }
}

TYPED_TEST(BinaryCrossEntropyTest, ExtremeLogitsGiveFiniteRightLosses) {
  const double tolerance = kElementwise.of<typename TypeParam::Element>();
  const Result got = this->compute({8192, -8192, 8192, -8192, 0, 50, -50}, {1, 1, 0, 0, 1, 0, 1}, {0, 2, 7});
  EXPECT_LE(normalised_error(got.row_losses, {0, 16384, 8192, 0, 2 * std::log(2), 50, 100}), tolerance);
  EXPECT_LE(normalised_error(got.dlogits, {0, -2, 1, 0, -1, 1, -2}), tolerance);
  const Result smooth = this->compute({8192, -8192}, {1, 0}, {0.1, 1, 2});
  EXPECT_LE(normalised_error(smooth.row_losses, {409.6, 409.6}), tolerance);
  EXPECT_LE(normalised_error(smooth.dlogits, {0.05, -0.05}),
            this->allowed_error({0.05, -0.05}, kElementwise));
}

TYPED_TEST(BinaryCrossEntropyTest, LossesOfCertainRowsKeepTheirDigits) {
  // In float, log(sigmoid(x)) would be 0 from x = 17 on.
  const Result got = this->compute({30}, {1}, {});
  const std::vector<double> gradient = {-std::exp(-30.0) / (1 + std::exp(-30.0))};
  EXPECT_LE(normalised_error(got.row_losses, {std::log1p(std::exp(-30.0))}), 1e-6);
  EXPECT_LE(normalised_error(got.dlogits, gradient), this->allowed_error(gradient, {1e-6, 1e-6}));
}

TYPED_TEST(BinaryCrossEntropyTest, NanAndUnknownLabelsShow) {
  const Result got = this->compute({NAN, 1, 1, 0}, {1, -1, 2, 0}, {});
  EXPECT_TRUE(std::isnan(got.loss[0]));
  for (const int i : {0, 1, 2}) {
    EXPECT_TRUE(std::isnan(got.row_losses[static_cast<std::size_t>(i)])) << i;
    EXPECT_TRUE(std::isnan(got.dlogits[static_cast<std::size_t>(i)])) << i;
  }
  EXPECT_FLOAT_EQ(static_cast<float>(got.row_losses[3]), std::log(2.0F));
  EXPECT_EQ(got.dlogits[3], 0.125);
}

TYPED_TEST(BinaryCrossEntropyTest, SameBitsForAnyThreadCount) {
  this->expect_same_bits_for_any_thread_count([&] {
    const Result result = this->compute(random_values(5003, 2, -5, 5), alternating_labels(5003), {0.1, 3, 1});
    return concatenate(concatenate(result.loss, result.row_losses), result.dlogits);
  });
}

template <typename C>
class BinaryCrossEntropyGradient : public BinaryCrossEntropyTest<C> {};
TYPED_TEST_SUITE(BinaryCrossEntropyGradient, DoubleCases);

TYPED_TEST(BinaryCrossEntropyGradient, MatchesFiniteDifferences) {
  const std::vector<double> x = random_values(9, 3, -4, 4);
  const std::vector<int> labels = alternating_labels(9);
  const auto loss = [&](const std::vector<double>& point) {
    return 0.5 * this->compute(point, labels, {0.1, 3, 0}).loss[0];
  };
  expect_gradient(loss, x, this->compute(x, labels, {0.1, 3, 0.5}).dlogits, "dlogits");
}

}  // namespace
}  // namespace voca::kernels::testing
