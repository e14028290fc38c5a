#include "kernels/layernorm.h"

#include "tests/kernels/support/dropout.h"
#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

struct Shape {
  std::int64_t rows;
  std::int64_t columns;
};

constexpr Shape kShapes[] = {{1, 1},    {1, 1031},  {257, 2},  {7, 13},   {71, 229}, {130, 512},
                             {3, 5003}, {1037, 96}, {67, 768}, {2, 4104}, {41, 520}, {70, 1000}};

// Enabled parts of the fused operation.
struct Parts {
  bool bias = false;
  bool residual = false;
  Dropout input_dropout{};
  Dropout output_dropout{};
};

const Parts kParts[] = {{},
                        {.residual = true},
                        {.bias = true, .residual = true, .input_dropout = test_dropout(0.1)},
                        {.bias = true, .output_dropout = test_dropout(0.3, 4, 3)},
                        {.bias = true,
                         .residual = true,
                         .input_dropout = test_dropout(0.5, 5, 7),
                         .output_dropout = test_dropout(0.2, 6, 1)}};

struct Inputs {
  std::vector<double> x;
  std::vector<double> bias;
  std::vector<double> residual;
  std::vector<double> gamma;
  std::vector<double> beta;
};

Inputs inputs_of(const Shape& s) {
  return {random_values(s.rows * s.columns, 1, -2, 3), random_values(s.columns, 2),
          random_values(s.rows * s.columns, 3), random_values(s.columns, 4, 0.5, 1.5),
          random_values(s.columns, 5)};
}

struct Saved {
  std::vector<double> z{};
  std::vector<double> mean{};
  std::vector<double> rstd{};
  std::vector<double> y{};
};

constexpr double kEps = 1e-5;

// Computes mean and rstd of the rows of z.
void take_statistics(const Shape& s, Saved& saved) {
  const auto n = static_cast<double>(s.columns);
  saved.mean.assign(at(s.rows), 0);
  saved.rstd.assign(at(s.rows), 0);
  for (std::int64_t r = 0; r < s.rows; ++r) {
    for (std::int64_t j = 0; j < s.columns; ++j) saved.mean[at(r)] += saved.z[at(r * s.columns + j)] / n;
    double squares = 0;
    for (std::int64_t j = 0; j < s.columns; ++j)
      squares += std::pow(saved.z[at(r * s.columns + j)] - saved.mean[at(r)], 2);
    saved.rstd[at(r)] = 1 / std::sqrt(squares / n + kEps);
  }
}

// Forward by its formulas, with z rounded to Stored before its statistics are computed.
template <typename Stored>
Saved reference_forward(const Shape& s, const Parts& parts, const Inputs& in) {
  Saved out{.z = std::vector<double>(in.x.size()), .y = std::vector<double>(in.x.size())};
  for (std::int64_t e = 0; e < s.rows * s.columns; ++e) {
    const double u = in.x[at(e)] + (parts.bias ? in.bias[at(e % s.columns)] : 0);
    const double z = (parts.residual ? in.residual[at(e)] : 0) + u * reference_factor(parts.input_dropout, e);
    out.z[at(e)] = to_double(from_double<Stored>(z));
  }
  take_statistics(s, out);
  for (std::int64_t e = 0; e < s.rows * s.columns; ++e) {
    const std::int64_t r = e / s.columns;
    const std::int64_t j = e % s.columns;
    const double xhat = (out.z[at(e)] - out.mean[at(r)]) * out.rstd[at(r)];
    out.y[at(e)] = (xhat * in.gamma[at(j)] + in.beta[at(j)]) * reference_factor(parts.output_dropout, e);
  }
  return out;
}

template <typename C>
class LayernormTest : public OpTest<C> {
 public:
  using Number = typename C::Element;
  using Statistic = Stat<Number>;

  // Outputs of one forward on the backend.
  struct Outputs {
    Buffer<typename C::Backend, Number> z, y;
    Buffer<typename C::Backend, Statistic> mean, rstd;
  };

  Outputs forward(const Shape& s, const Parts& parts, const Inputs& in) {
    auto x = this->input(in.x);
    auto bias = this->input(in.bias);
    auto residual = this->input(in.residual);
    auto gamma = this->input(in.gamma);
    auto beta = this->input(in.beta);
    Outputs out{this->output(s.rows * s.columns), this->output(s.rows * s.columns),
                this->template output<Statistic>(s.rows), this->template output<Statistic>(s.rows)};
    layernorm_forward(typename C::Backend{},
                      LayernormForward<Number>{.rows = s.rows,
                                               .columns = s.columns,
                                               .x = x.data(),
                                               .bias = parts.bias ? bias.data() : nullptr,
                                               .residual = parts.residual ? residual.data() : nullptr,
                                               .gamma = gamma.data(),
                                               .beta = beta.data(),
                                               .eps = kEps,
                                               .input_dropout = parts.input_dropout,
                                               .output_dropout = parts.output_dropout,
                                               .z = out.z.data(),
                                               .mean = out.mean.data(),
                                               .rstd = out.rstd.data(),
                                               .y = out.y.data()});
    return out;
  }

  // Rounds the inputs to the element type, as the operation sees them.
  Inputs rounded(const Inputs& in) {
    return {rounded_to<Number>(in.x), rounded_to<Number>(in.bias), rounded_to<Number>(in.residual),
            rounded_to<Number>(in.gamma), rounded_to<Number>(in.beta)};
  }

  // Compares y with the formula; the naive computation rounds z and y.
  void expect_y_close(const Buffer<typename C::Backend, Number>& y, const Shape& s, const Parts& parts,
                      const Inputs& in, Tolerance tolerance) {
    const auto naive = rounded_to<Number>(reference_forward<Number>(s, parts, in).y);
    this->expect_close(y, reference_forward<double>(s, parts, in).y, naive, tolerance, "y");
  }
};
TYPED_TEST_SUITE(LayernormTest, Cases);

TYPED_TEST(LayernormTest, ForwardMatchesTheFormulaInEveryCombination) {
  for (const Shape& s : kShapes) {
    for (const Parts& parts : kParts) {
      SCOPED_TRACE(::testing::Message() << s.rows << " x " << s.columns << ", parts " << &parts - kParts);
      const Inputs in = this->rounded(inputs_of(s));
      const Saved want = reference_forward<double>(s, parts, in);
      auto got = this->forward(s, parts, in);
      this->expect_close(got.z, want.z, kElementwise, "z");
      // Statistics are computed from z as stored.
      Saved stored{.z = got.z.values()};
      take_statistics(s, stored);
      this->expect_close(got.mean, stored.mean, kReduction, "mean");
      // A row of one or two columns may have almost no variance, so that rstd amplifies the rounding of z.
      if (s.columns > 2) {
        this->expect_close(got.rstd, stored.rstd, kReduction, "rstd");
        this->expect_y_close(got.y, s, parts, in, kReduction);
      }
    }
  }
}

TYPED_TEST(LayernormTest, InferenceAndInPlaceGiveTheSameOutput) {
  using Element = typename TypeParam::Element;
  const Shape s{71, 229};
  const Parts& parts = kParts[1];
  const Inputs in = inputs_of(s);
  const auto want = this->forward(s, parts, in).y.raw();
  auto residual = this->input(in.residual);
  auto gamma = this->input(in.gamma);
  auto beta = this->input(in.beta);
  {
    auto x = this->input(in.x);
    auto y = this->output(s.rows * s.columns);
    layernorm_forward(typename TypeParam::Backend{}, LayernormForward<Element>{.rows = s.rows,
                                                                               .columns = s.columns,
                                                                               .x = x.data(),
                                                                               .residual = residual.data(),
                                                                               .gamma = gamma.data(),
                                                                               .beta = beta.data(),
                                                                               .eps = kEps,
                                                                               .y = y.data()});
    EXPECT_EQ(y.raw(), want);
  }
  auto z = this->accumulated(in.x);
  auto y = this->output(s.rows * s.columns);
  auto mean = this->template output<Stat<Element>>(s.rows);
  auto rstd = this->template output<Stat<Element>>(s.rows);
  layernorm_forward(typename TypeParam::Backend{}, LayernormForward<Element>{.rows = s.rows,
                                                                             .columns = s.columns,
                                                                             .x = z.data(),
                                                                             .residual = residual.data(),
                                                                             .gamma = gamma.data(),
                                                                             .beta = beta.data(),
                                                                             .eps = kEps,
                                                                             .z = z.data(),
                                                                             .mean = mean.data(),
                                                                             .rstd = rstd.data(),
                                                                             .y = y.data()});
  EXPECT_EQ(y.raw(), want);
}

TYPED_TEST(LayernormTest, SurvivesALargeMean) {
  const Shape s{5, 768};
  Inputs in = inputs_of(s);
  for (double& value : in.x) value += 4096;
  in = this->rounded(in);
  // The mean has a rounding error of ε · 4096, which is multiplied by rstd in y.
  this->expect_y_close(this->forward(s, {}, in).y, s, {}, in, Tolerance{5e-4, 1e-11});
}

TYPED_TEST(LayernormTest, NotANumberSpreadsToItsRowAndNoFurther) {
  const Shape s{9, 77};
  Inputs in = inputs_of(s);
  in.x[4 * 77 + 5] = std::nan("");
  const auto y = this->forward(s, {.residual = true, .input_dropout = test_dropout(0.5)}, in).y.values();
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i / 77 == 4) << i;
}

TYPED_TEST(LayernormTest, BackwardMatchesTheFormulaInEveryCombination) {
  using Element = typename TypeParam::Element;
  using S = Stat<Element>;
  for (const Shape& s : kShapes) {
    if (s.columns <= 2) continue;
    for (const Parts& parts : kParts) {
      for (const bool accumulate : {false, true}) {
        if (accumulate && !parts.residual) continue;
        SCOPED_TRACE(::testing::Message() << s.rows << " x " << s.columns << ", parts " << &parts - kParts
                                          << ", accumulate " << accumulate);
        const std::int64_t n = s.rows * s.columns;
        const Saved saved = reference_forward<Element>(s, parts, inputs_of(s));
        auto z = this->input(saved.z);
        auto mean = this->template input<S>(saved.mean);
        auto rstd = this->template input<S>(saved.rstd);
        auto gamma = this->input(inputs_of(s).gamma);
        auto dy = this->input(random_values(n, 11));
        auto dx = this->output(n);
        auto dresidual = accumulate ? this->accumulated(random_values(n, 12)) : this->output(n);
        auto dgamma = this->accumulated(random_values(s.columns, 13));
        auto dbeta = this->accumulated(random_values(s.columns, 14));
        auto dbias = this->accumulated(random_values(s.columns, 15));
        std::vector<double> want_dx(at(n));
        std::vector<double> want_dresidual = accumulate ? dresidual.values() : std::vector<double>(at(n));
        std::vector<double> want_dgamma = dgamma.values();
        std::vector<double> want_dbeta = dbeta.values();
        std::vector<double> want_dbias = dbias.values();
        const auto zv = z.values();
        const auto mv = mean.values();
        const auto rv = rstd.values();
        const auto gv = gamma.values();
        const auto dyv = dy.values();
        for (std::int64_t r = 0; r < s.rows; ++r) {
          double sum_g = 0;
          double sum_gx = 0;
          const auto xhat = [&](std::int64_t j) {
            return (zv[at(r * s.columns + j)] - mv[at(r)]) * rv[at(r)];
          };
          const auto d = [&](std::int64_t j) {
            return dyv[at(r * s.columns + j)] * reference_factor(parts.output_dropout, r * s.columns + j);
          };
          for (std::int64_t j = 0; j < s.columns; ++j) {
            sum_g += d(j) * gv[at(j)];
            sum_gx += d(j) * gv[at(j)] * xhat(j);
            want_dgamma[at(j)] += d(j) * xhat(j);
            want_dbeta[at(j)] += d(j);
          }
          for (std::int64_t j = 0; j < s.columns; ++j) {
            const std::int64_t e = r * s.columns + j;
            const double dz = rv[at(r)] * (d(j) * gv[at(j)] - sum_g / static_cast<double>(s.columns) -
                                           xhat(j) * sum_gx / static_cast<double>(s.columns));
            want_dx[at(e)] = dz * reference_factor(parts.input_dropout, e);
            want_dresidual[at(e)] += dz;
            want_dbias[at(j)] += want_dx[at(e)];
          }
        }
        Scratch<typename TypeParam::Backend> scratch(scratch_bytes(
            typename TypeParam::Backend{}, LayernormBackward<Element>{.rows = s.rows, .columns = s.columns}));
        LayernormBackward<Element> args{.rows = s.rows,
                                        .columns = s.columns,
                                        .dy = dy.data(),
                                        .z = z.data(),
                                        .mean = mean.data(),
                                        .rstd = rstd.data(),
                                        .gamma = gamma.data(),
                                        .input_dropout = parts.input_dropout,
                                        .output_dropout = parts.output_dropout,
                                        .dx = dx.data(),
                                        .dresidual = parts.residual ? dresidual.data() : nullptr,
                                        .accumulate_dresidual = accumulate,
                                        .dgamma = dgamma.data(),
                                        .dbeta = dbeta.data(),
                                        .dbias = parts.bias ? dbias.data() : nullptr,
                                        .scratch = scratch.data()};
        layernorm_backward(typename TypeParam::Backend{}, args);
        this->expect_close(dx, want_dx, kReduction, "dx");
        if (parts.residual) this->expect_close(dresidual, want_dresidual, kReduction, "dresidual");
        this->expect_close(dgamma, want_dgamma, kReduction, "dgamma");
        this->expect_close(dbeta, want_dbeta, kReduction, "dbeta");
        if (parts.bias) this->expect_close(dbias, want_dbias, kReduction, "dbias");
        auto in_place = this->accumulated(random_values(n, 11));
        args.dy = in_place.data();
        args.dx = in_place.data();
        args.dresidual = nullptr;
        layernorm_backward(typename TypeParam::Backend{}, args);
        EXPECT_EQ(in_place.raw(), dx.raw());
      }
    }
  }
}

TYPED_TEST(LayernormTest, BitsDoNotDependOnTheThreads) {
  using Element = typename TypeParam::Element;
  const Shape s{1037, 229};
  const Parts& parts = kParts[4];
  const std::int64_t n = s.rows * s.columns;
  const Inputs in = inputs_of(s);
  auto gamma = this->input(in.gamma);
  auto dy = this->input(random_values(n, 11));
  this->expect_same_bits_for_any_thread_count([&] {
    auto saved = this->forward(s, parts, in);
    auto dx = this->output(n);
    auto dresidual = this->output(n);
    auto sums = this->accumulated(random_values(3 * s.columns, 12));
    Scratch<typename TypeParam::Backend> scratch(scratch_bytes(
        typename TypeParam::Backend{}, LayernormBackward<Element>{.rows = s.rows, .columns = s.columns}));
    layernorm_backward(typename TypeParam::Backend{},
                       LayernormBackward<Element>{.rows = s.rows,
                                                  .columns = s.columns,
                                                  .dy = dy.data(),
                                                  .z = saved.z.data(),
                                                  .mean = saved.mean.data(),
                                                  .rstd = saved.rstd.data(),
                                                  .gamma = gamma.data(),
                                                  .input_dropout = parts.input_dropout,
                                                  .output_dropout = parts.output_dropout,
                                                  .dx = dx.data(),
                                                  .dresidual = dresidual.data(),
                                                  .dgamma = sums.data(),
                                                  .dbeta = sums.data() + s.columns,
                                                  .dbias = sums.data() + 2 * s.columns,
                                                  .scratch = scratch.data()});
    return concatenate(concatenate(saved.y.raw(), saved.z.raw()),
                       concatenate(concatenate(dx.raw(), dresidual.raw()), sums.raw()));
  });
}

template <typename C>
class LayernormDerivative : public LayernormTest<C> {};
TYPED_TEST_SUITE(LayernormDerivative, DoubleCases);

TYPED_TEST(LayernormDerivative, BackwardIsTheDerivativeOfForward) {
  const Shape s{5, 9};
  const std::int64_t n = s.rows * s.columns;
  const auto w = random_values(n, 21);
  for (const Parts& parts : kParts) {
    SCOPED_TRACE(::testing::Message() << "parts " << &parts - kParts);
    const Inputs in = inputs_of(s);
    auto saved = this->forward(s, parts, in);
    auto gamma = this->input(in.gamma);
    auto dy = this->input(w);
    auto dx = this->output(n);
    auto dresidual = this->output(n);
    auto dgamma = this->accumulated(std::vector<double>(at(s.columns)));
    auto dbeta = this->accumulated(std::vector<double>(at(s.columns)));
    auto dbias = this->accumulated(std::vector<double>(at(s.columns)));
    Scratch<typename TypeParam::Backend> scratch(scratch_bytes(
        typename TypeParam::Backend{}, LayernormBackward<double>{.rows = s.rows, .columns = s.columns}));
    layernorm_backward(typename TypeParam::Backend{},
                       LayernormBackward<double>{.rows = s.rows,
                                                 .columns = s.columns,
                                                 .dy = dy.data(),
                                                 .z = saved.z.data(),
                                                 .mean = saved.mean.data(),
                                                 .rstd = saved.rstd.data(),
                                                 .gamma = gamma.data(),
                                                 .input_dropout = parts.input_dropout,
                                                 .output_dropout = parts.output_dropout,
                                                 .dx = dx.data(),
                                                 .dresidual = dresidual.data(),
                                                 .dgamma = dgamma.data(),
                                                 .dbeta = dbeta.data(),
                                                 .dbias = dbias.data(),
                                                 .scratch = scratch.data()});
    const auto check = [&](std::vector<double> Inputs::*which, const std::vector<double>& analytic,
                           const char* what) {
      expect_gradient(
          [&](const std::vector<double>& point) {
            Inputs moved = in;
            moved.*which = point;
            return weighted_sum_of(w, this->forward(s, parts, moved).y.values());
          },
          in.*which, analytic, what);
    };
    check(&Inputs::x, dx.values(), "dx");
    if (parts.residual) check(&Inputs::residual, dresidual.values(), "dresidual");
    check(&Inputs::gamma, dgamma.values(), "dgamma");
    check(&Inputs::beta, dbeta.values(), "dbeta");
    if (parts.bias) check(&Inputs::bias, dbias.values(), "dbias");
  }
}

}  // namespace
}  // namespace voca::kernels::testing
