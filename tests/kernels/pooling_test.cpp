#include "kernels/pooling.h"

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct PoolingShape {
  std::int64_t batch, length, columns;
  [[nodiscard]] std::int64_t inputs() const { return batch * length * columns; }
  [[nodiscard]] std::int64_t outputs() const { return batch * columns; }
};
constexpr PoolingShape kShapes[] = {{1, 1, 1},    {1, 1, 7},     {3, 5, 1},   {2, 256, 64},
                                    {2, 31, 257}, {1, 320, 768}, {5, 2, 511}, {127, 3, 13}};

struct Pooled {
  std::vector<double> mean, mean_max;
  std::vector<std::int32_t> argmax;
};

Pooled pool(const std::vector<double>& x, const PoolingShape& shape) {
  Pooled pooled;
  for (std::int64_t b = 0; b < shape.batch; ++b) {
    for (std::int64_t h = 0; h < shape.columns; ++h) {
      double sum = 0;
      double maximum = -kInfinity;
      std::int32_t first = -1;
      for (std::int64_t t = 0; t < shape.length; ++t) {
        const double value = x[static_cast<std::size_t>((b * shape.length + t) * shape.columns + h)];
        sum += value;
        if (value > maximum) {
          maximum = value;
          first = static_cast<std::int32_t>(t);
        }
      }
      pooled.mean.push_back(sum / static_cast<double>(shape.length));
      pooled.mean_max.push_back(pooled.mean.back() + maximum);
      pooled.argmax.push_back(first);
    }
  }
  return pooled;
}

/// An arbitrary frame for every (sample, column).
std::vector<std::int32_t> some_argmax(const PoolingShape& shape) {
  std::vector<std::int32_t> argmax;
  for (std::int64_t i = 0; i < shape.outputs(); ++i) {
    argmax.push_back(static_cast<std::int32_t>(i * 7 % shape.length));
  }
  return argmax;
}

template <typename C>
class Pooling : public OpTest<C> {};
TYPED_TEST_SUITE(Pooling, Cases);

TYPED_TEST(Pooling, MeanPlusMaximumOfEveryColumn) {
  for (const PoolingShape& shape : kShapes) {
    auto x = this->input(random_values(shape.inputs(), 3));
    auto y = this->output(shape.outputs());
    auto mean = this->output(shape.outputs());
    auto argmax = this->template output<std::int32_t>(shape.outputs());
    const typename TypeParam::Backend backend;
    pooling_forward<typename TypeParam::Element>(
        backend, {shape.batch, shape.length, shape.columns, x.data(), y.data(), argmax.data()});
    pooling_forward<typename TypeParam::Element>(
        backend, {shape.batch, shape.length, shape.columns, x.data(), mean.data(), nullptr});
    const Pooled expected = pool(x.values(), shape);
    this->expect_close(y, expected.mean_max, kElementwise, "mean + max");
    this->expect_close(mean, expected.mean, kElementwise, "mean");
    EXPECT_EQ(argmax.raw(), expected.argmax);
  }
}

TYPED_TEST(Pooling, TiesGoToTheFirstFrameAndNanStays) {
  // Columns: a tie, a NaN between numbers, a NaN first, all −∞, two NaNs.
  auto x = this->input(std::vector<double>{1, 2,    kNan, -kInfinity, 5,     //
                                           4, kNan, 7,    -kInfinity, kNan,  //
                                           4, 9,    8,    -kInfinity, kNan,  //
                                           0, 1,    9,    -kInfinity, 1000});
  auto y = this->output(5);
  auto argmax = this->template output<std::int32_t>(5);
  pooling_forward<typename TypeParam::Element>(typename TypeParam::Backend{},
                                               {1, 4, 5, x.data(), y.data(), argmax.data()});
  EXPECT_EQ(argmax.raw(), (std::vector<std::int32_t>{1, 1, 0, 0, 1}));
  this->expect_close(y, {6.25, kNan, kNan, -kInfinity, kNan}, {0, 0}, "y");
}

TYPED_TEST(Pooling, LargeValuesDoNotOverflowTheMean) {
  const double huge = std::min(largest<typename TypeParam::Element>(), largest<float>());
  auto x = this->input(std::vector<double>{-huge, -huge, -huge});
  auto y = this->output(1);
  pooling_forward<typename TypeParam::Element>(typename TypeParam::Backend{},
                                               {1, 3, 1, x.data(), y.data(), nullptr});
  this->expect_close(y, {-huge}, {0, 0}, "y");
}

TYPED_TEST(Pooling, BackwardOverwritesOrAccumulates) {
  for (const PoolingShape& shape : kShapes) {
    for (const bool with_maximum : {false, true}) {
      auto dy = this->input(random_values(shape.outputs(), 4));
      const std::vector<std::int32_t> frames = some_argmax(shape);
      auto argmax = this->template input<std::int32_t>(frames);
      auto dx = this->output(shape.inputs());
      auto sum = this->accumulated(random_values(shape.inputs(), 5));
      std::vector<double> expected;
      std::vector<double> expected_sum = sum.values();
      const std::vector<double> gradient = dy.values();
      for (std::int64_t i = 0; i < shape.inputs(); ++i) {
        const std::int64_t t = i / shape.columns % shape.length;
        const auto source =
            static_cast<std::size_t>(i / (shape.length * shape.columns) * shape.columns + i % shape.columns);
        const bool is_maximum = with_maximum && frames[source] == t;
        expected.push_back(gradient[source] / static_cast<double>(shape.length) +
                           (is_maximum ? gradient[source] : 0));
        expected_sum[static_cast<std::size_t>(i)] += expected.back();
      }
      const std::int32_t* saved = with_maximum ? argmax.data() : nullptr;
      const typename TypeParam::Backend backend;
      pooling_backward<typename TypeParam::Element>(
          backend, {shape.batch, shape.length, shape.columns, dy.data(), saved, dx.data(), false});
      pooling_backward<typename TypeParam::Element>(
          backend, {shape.batch, shape.length, shape.columns, dy.data(), saved, sum.data(), true});
      this->expect_close(dx, expected, kElementwise, "dx");
      this->expect_close(sum, expected_sum, kElementwise, "accumulated dx");
    }
  }
}

TYPED_TEST(Pooling, SameBitsForAnyThreadCount) {
  const PoolingShape shape{3, 117, 300};
  this->expect_same_bits_for_any_thread_count([&] {
    auto x = this->input(random_values(shape.inputs(), 8));
    auto y = this->output(shape.outputs());
    auto dx = this->output(shape.inputs());
    auto argmax = this->template output<std::int32_t>(shape.outputs());
    const typename TypeParam::Backend backend;
    pooling_forward<typename TypeParam::Element>(backend, {3, 117, 300, x.data(), y.data(), argmax.data()});
    pooling_backward<typename TypeParam::Element>(backend,
                                                  {3, 117, 300, y.data(), argmax.data(), dx.data(), false});
    return concatenate(y.raw(), dx.raw());
  });
}

template <typename C>
class PoolingGradient : public OpTest<C> {};
TYPED_TEST_SUITE(PoolingGradient, DoubleCases);

TYPED_TEST(PoolingGradient, MatchesFiniteDifferences) {
  const PoolingShape shape{2, 5, 3};
  const typename TypeParam::Backend backend;
  for (const bool with_maximum : {false, true}) {
    // Values differ by more than the step of the finite differences.
    std::vector<double> x = random_values(shape.inputs(), 6, -1e-3, 1e-3);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += 0.1 * static_cast<double>(i * 17 % 30);
    const std::vector<double> weights = random_values(shape.outputs(), 7);
    std::vector<std::int32_t> saved;
    const auto loss = [&](const std::vector<double>& point) {
      auto in = this->input(point);
      auto y = this->output(shape.outputs());
      auto argmax = this->template output<std::int32_t>(shape.outputs());
      pooling_forward<double>(backend,
                              {2, 5, 3, in.data(), y.data(), with_maximum ? argmax.data() : nullptr});
      saved = argmax.raw();
      return weighted_sum_of(weights, y.values());
    };
    loss(x);
    auto dy = this->input(weights);
    auto argmax = this->template input<std::int32_t>(saved);
    auto dx = this->output(shape.inputs());
    pooling_backward<double>(backend,
                             {2, 5, 3, dy.data(), with_maximum ? argmax.data() : nullptr, dx.data(), false});
    expect_gradient(loss, x, dx.values(), "dx");
  }
}

}  // namespace
}  // namespace voca::kernels::testing
