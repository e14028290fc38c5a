#include "kernels/gelu.h"

#include "tests/kernels/support/dropout.h"
#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

struct Shape {
  std::int64_t rows;
  std::int64_t columns;
};

constexpr Shape kShapes[] = {{1, 1},    {1, 1031},  {257, 1},  {7, 13},
                             {71, 229}, {130, 512}, {3, 5003}, {517, 96}};

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

double cdf(double u) {
  return 0.5 * std::erfc(-u / std::sqrt(2.0));
}
double pdf(double u) {
  return std::exp(-u * u / 2) / std::sqrt(2 * std::acos(-1.0));
}

std::vector<double> reference_forward(const Shape& s, const std::vector<double>& x,
                                      const std::vector<double>& bias, const Dropout& dropout) {
  std::vector<double> y(x.size());
  for (std::int64_t i = 0; i < s.rows * s.columns; ++i) {
    const double u = x[at(i)] + (bias.empty() ? 0 : bias[at(i % s.columns)]);
    y[at(i)] = u * cdf(u) * reference_factor(dropout, i);
  }
  return y;
}

const Dropout kDropouts[] = {{}, test_dropout(0.1), test_dropout(0.5, 9, 5)};

template <typename C>
class GeluTest : public OpTest<C> {};
TYPED_TEST_SUITE(GeluTest, Cases);

TYPED_TEST(GeluTest, ForwardMatchesTheFormula) {
  using T = typename TypeParam::Element;
  for (const Shape& s : kShapes) {
    for (const Dropout& dropout : kDropouts) {
      for (const bool with_bias : {false, true}) {
        SCOPED_TRACE(::testing::Message() << s.rows << " x " << s.columns << ", threshold "
                                          << dropout.threshold << ", bias " << with_bias);
        auto x = this->input(random_values(s.rows * s.columns, 1, -6, 6));
        auto bias = this->input(random_values(s.columns, 2));
        auto y = this->output(s.rows * s.columns);
        gelu_forward(typename TypeParam::Backend{},
                     GeluForward<T>{s.rows, s.columns, x.data(), with_bias ? bias.data() : nullptr, dropout,
                                    y.data()});
        this->expect_close(
            y, reference_forward(s, x.values(), with_bias ? bias.values() : std::vector<double>{}, dropout),
            kElementwise, "y");
        auto in_place = this->accumulated(random_values(s.rows * s.columns, 1, -6, 6));
        gelu_forward(typename TypeParam::Backend{},
                     GeluForward<T>{s.rows, s.columns, in_place.data(), with_bias ? bias.data() : nullptr,
                                    dropout, in_place.data()});
        EXPECT_EQ(in_place.raw(), y.raw());
      }
    }
  }
}

TYPED_TEST(GeluTest, BackwardMatchesTheFormula) {
  using T = typename TypeParam::Element;
  for (const Shape& s : kShapes) {
    for (const Dropout& dropout : kDropouts) {
      for (const bool with_bias : {false, true}) {
        SCOPED_TRACE(::testing::Message() << s.rows << " x " << s.columns << ", threshold "
                                          << dropout.threshold << ", bias " << with_bias);
        const std::int64_t n = s.rows * s.columns;
        auto x = this->input(random_values(n, 1, -6, 6));
        auto bias = this->input(random_values(s.columns, 2));
        auto dy = this->input(random_values(n, 3));
        auto dx = this->output(n);
        auto dbias = this->accumulated(random_values(s.columns, 4));
        std::vector<double> want_dbias = dbias.values();
        std::vector<double> want_dx(at(n));
        const auto xv = x.values();
        const auto bv = bias.values();
        const auto dyv = dy.values();
        for (std::int64_t i = 0; i < n; ++i) {
          const double u = xv[at(i)] + (with_bias ? bv[at(i % s.columns)] : 0);
          want_dx[at(i)] = dyv[at(i)] * reference_factor(dropout, i) * (cdf(u) + u * pdf(u));
          want_dbias[at(i % s.columns)] += want_dx[at(i)];
        }
        Scratch<typename TypeParam::Backend> scratch(scratch_bytes(
            typename TypeParam::Backend{}, GeluBackward<T>{.rows = s.rows, .columns = s.columns}));
        GeluBackward<T> args{.rows = s.rows,
                             .columns = s.columns,
                             .dy = dy.data(),
                             .x = x.data(),
                             .bias = with_bias ? bias.data() : nullptr,
                             .dropout = dropout,
                             .dx = dx.data(),
                             .dbias = with_bias ? dbias.data() : nullptr,
                             .scratch = scratch.data()};
        gelu_backward(typename TypeParam::Backend{}, args);
        this->expect_close(dx, want_dx, kElementwise, "dx");
        if (with_bias) this->expect_close(dbias, want_dbias, kReduction, "dbias");
        auto in_place = this->accumulated(random_values(n, 3));
        args.dy = in_place.data();
        args.dx = in_place.data();
        args.dbias = nullptr;
        gelu_backward(typename TypeParam::Backend{}, args);
        EXPECT_EQ(in_place.raw(), dx.raw());
      }
    }
  }
}

TYPED_TEST(GeluTest, NotANumberShowsEvenWhereDropped) {
  using T = typename TypeParam::Element;
  auto x = this->input(std::vector<double>(64, std::nan("")));
  auto y = this->accumulated(std::vector<double>(64));
  gelu_forward(typename TypeParam::Backend{},
               GeluForward<T>{1, 64, x.data(), nullptr, test_dropout(0.5), y.data()});
  for (const double value : y.values()) EXPECT_TRUE(std::isnan(value));
}

TYPED_TEST(GeluTest, BitsDoNotDependOnTheThreads) {
  using T = typename TypeParam::Element;
  const Shape s{517, 229};
  const std::int64_t n = s.rows * s.columns;
  auto x = this->input(random_values(n, 1, -6, 6));
  auto bias = this->input(random_values(s.columns, 2));
  auto dy = this->input(random_values(n, 3));
  this->expect_same_bits_for_any_thread_count([&] {
    auto y = this->output(n);
    auto dx = this->output(n);
    auto dbias = this->accumulated(random_values(s.columns, 4));
    Scratch<typename TypeParam::Backend> scratch(
        scratch_bytes(typename TypeParam::Backend{}, GeluBackward<T>{.rows = s.rows, .columns = s.columns}));
    gelu_forward(typename TypeParam::Backend{},
                 GeluForward<T>{s.rows, s.columns, x.data(), bias.data(), test_dropout(0.1), y.data()});
    gelu_backward(typename TypeParam::Backend{},
                  GeluBackward<T>{s.rows, s.columns, dy.data(), x.data(), bias.data(), test_dropout(0.1),
                                  dx.data(), dbias.data(), scratch.data()});
    return concatenate(concatenate(y.raw(), dx.raw()), dbias.raw());
  });
}

template <typename C>
class GeluDerivative : public OpTest<C> {};
TYPED_TEST_SUITE(GeluDerivative, DoubleCases);

TYPED_TEST(GeluDerivative, BackwardIsTheDerivativeOfForward) {
  using Backend = typename TypeParam::Backend;
  const Shape s{7, 11};
  const std::int64_t n = s.rows * s.columns;
  for (const Dropout& dropout : kDropouts) {
    const auto x = random_values(n, 1, -3, 3);
    const auto bias = random_values(s.columns, 2);
    const auto w = random_values(n, 3);
    const auto objective = [&](const std::vector<double>& xs, const std::vector<double>& bs) {
      auto xb = this->input(xs);
      auto bb = this->input(bs);
      auto y = this->output(n);
      gelu_forward(Backend{},
                   GeluForward<double>{s.rows, s.columns, xb.data(), bb.data(), dropout, y.data()});
      return weighted_sum_of(w, y.values());
    };
    auto xb = this->input(x);
    auto bb = this->input(bias);
    auto dy = this->input(w);
    auto dx = this->output(n);
    auto dbias = this->accumulated(std::vector<double>(at(s.columns)));
    Scratch<Backend> scratch(
        scratch_bytes(Backend{}, GeluBackward<double>{.rows = s.rows, .columns = s.columns}));
    gelu_backward(Backend{}, GeluBackward<double>{s.rows, s.columns, dy.data(), xb.data(), bb.data(), dropout,
                                                  dx.data(), dbias.data(), scratch.data()});
    expect_gradient([&](const auto& p) { return objective(p, bias); }, x, dx.values(), "dx");
    expect_gradient([&](const auto& p) { return objective(x, p); }, bias, dbias.values(), "dbias");
  }
}

}  // namespace
}  // namespace voca::kernels::testing
