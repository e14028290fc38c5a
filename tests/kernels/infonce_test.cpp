#include "kernels/infonce.h"

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

struct Problem {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t width = 0;
  std::int64_t offset = 0;
  double temperature = 0.07;
  double grad = 1;
  std::vector<double> zv{}, za{};
  std::vector<int> row_labels{}, column_labels{};
};

struct Result {
  double loss = 0;
  std::vector<double> dzv{}, dza{};
};

/// `n` random rows of unit length.
std::vector<double> unit_rows(std::int64_t n, std::int64_t width, std::uint64_t seed) {
  std::vector<double> rows = random_values(n * width, seed);
  for (std::int64_t i = 0; i < n; ++i) {
    double square = 0;
    for (std::int64_t j = 0; j < width; ++j)
      square += std::pow(rows[static_cast<std::size_t>(i * width + j)], 2);
    for (std::int64_t j = 0; j < width; ++j)
      rows[static_cast<std::size_t>(i * width + j)] /= std::sqrt(square);
  }
  return rows;
}

Problem random_problem(std::int64_t rows, std::int64_t columns, std::int64_t width, std::int64_t offset) {
  Problem p{.rows = rows, .columns = columns, .width = width, .offset = offset};
  p.zv = unit_rows(rows, width, 1);
  p.za = unit_rows(columns, width, 2);
  for (std::int64_t j = 0; j < columns; ++j) p.column_labels.push_back(static_cast<int>(j * j / 3 % 2));
  for (std::int64_t i = 0; i < rows; ++i)
    p.row_labels.push_back(p.column_labels[static_cast<std::size_t>(i + offset)]);
  return p;
}

/// Loss by its definition in long double, whose exponent range includes e^{±11000}; gradients by the formulas
/// of the header.
Result reference(const Problem& p) {
  const auto rows = static_cast<long double>(p.rows);
  Result result{0, std::vector<double>(p.zv.size(), 0), std::vector<double>(p.za.size(), 0)};
  const auto at = [&](std::int64_t row, std::int64_t k) {
    return static_cast<std::size_t>(row * p.width + k);
  };
  for (std::int64_t i = 0; i < p.rows; ++i) {
    std::vector<long double> e;
    std::vector<long double> m;
    long double all = 0;
    long double positive = 0;
    for (std::int64_t j = 0; j < p.columns; ++j) {
      long double s = 0;
      for (std::int64_t k = 0; k < p.width; ++k)
        s += static_cast<long double>(p.zv[at(i, k)]) * p.za[at(j, k)];
      e.push_back(std::exp(s / p.temperature));
      const bool same =
          p.row_labels[static_cast<std::size_t>(i)] == p.column_labels[static_cast<std::size_t>(j)];
      m.push_back(j == i + p.offset ? 2 : (same ? 1 : 0));
      all += e.back();
      positive += m.back() * e.back();
    }
    result.loss -= static_cast<double>((std::log(positive) - std::log(all + 1e-8L)) / rows);
    for (std::int64_t j = 0; j < p.columns; ++j) {
      const auto c = static_cast<std::size_t>(j);
      const long double w = (e[c] / (all + 1e-8L) - m[c] * e[c] / positive) / (rows * p.temperature) * p.grad;
      for (std::int64_t k = 0; k < p.width; ++k) {
        result.dzv[at(i, k)] += static_cast<double>(w * p.za[at(j, k)]);
        result.dza[at(j, k)] += static_cast<double>(w * p.zv[at(i, k)]);
      }
    }
  }
  return result;
}

template <typename C>
class InfoNceTest : public OpTest<C> {
 protected:
  using Element = typename C::Element;

  Result compute(const Problem& p) {
    auto zv = this->input(p.zv);
    auto za = this->input(p.za);
    auto row_labels = this->template input<std::int32_t>(p.row_labels);
    auto column_labels = this->template input<std::int32_t>(p.column_labels);
    auto loss_scale = this->template input<float>(std::vector<double>{kLossScale});
    auto loss = this->template output<Stat<Element>>(1);
    auto dzv = this->output(p.rows * p.width);
    auto dza = this->output(p.columns * p.width);
    const typename C::Backend backend;
    Scratch<typename C::Backend> scratch(
        scratch_bytes(backend, InfoNce<Element>{.rows = p.rows, .columns = p.columns, .width = p.width}));
    InfoNce<Element> args;
    args.rows = p.rows;
    args.columns = p.columns;
    args.width = p.width;
    args.diagonal_offset = p.offset;
    args.temperature = p.temperature;
    args.zv = zv.data();
    args.za = za.data();
    args.row_labels = row_labels.data();
    args.column_labels = column_labels.data();
    args.grad = p.grad / kLossScale;
    args.loss_scale = loss_scale.data();
    args.loss = loss.data();
    args.scratch = scratch.data();
    infonce(backend, args);
    const double loss_alone = loss.values()[0];
    args.dzv = dzv.data();
    args.dza = dza.data();
    infonce(backend, args);
    const double with_gradients = loss.values()[0];
    EXPECT_TRUE(loss_alone == with_gradients || (std::isnan(loss_alone) && std::isnan(with_gradients)));
    return {with_gradients, dzv.values(), dza.values()};
  }

  /// Rounds the embeddings of a problem to the element type.
  static Problem rounded(Problem p) {
    p.zv = rounded_to<Element>(p.zv);
    p.za = rounded_to<Element>(p.za);
    return p;
  }

  void check(const Problem& problem, Tolerance tolerance) {
    const Problem p = rounded(problem);
    const Result got = compute(p);
    const Result want = reference(p);
    EXPECT_NEAR(got.loss, want.loss, tolerance.of<Element>() * std::max(1.0, std::abs(want.loss)));
    expect_gradients_close(p, got, want, tolerance);
  }

  /// W is a difference of probabilities; if they nearly cancel, its error is relative to the probabilities,
  /// not to W.
  static void expect_gradients_close(const Problem& p, const Result& got, const Result& want,
                                     Tolerance tolerance) {
    const double cancelled = 1e-2 * p.grad / (static_cast<double>(p.rows) * p.temperature);
    const auto error = [&](std::vector<double> a, std::vector<double> b) {
      a.push_back(cancelled);
      b.push_back(cancelled);
      return normalised_error(a, b);
    };
    // For 16-bit gradients, additionally twice their rounding error.
    const auto allowed = [&](const std::vector<double>& gradient) {
      const double rounding = kIsNarrow<Element> ? 2 * error(rounded_to<Element>(gradient), gradient) : 0;
      return tolerance.of<Element>() + rounding;
    };
    EXPECT_LE(error(got.dzv, want.dzv), allowed(want.dzv));
    EXPECT_LE(error(got.dza, want.dza), allowed(want.dza));
  }
};
TYPED_TEST_SUITE(InfoNceTest, Cases);

TYPED_TEST(InfoNceTest, MatchesTheDefinition) {
  constexpr std::int64_t shapes[][4] = {{1, 1, 4, 0},     {2, 2, 1, 0},   {7, 7, 5, 0},    {64, 64, 256, 0},
                                        {31, 101, 17, 0}, {5, 20, 8, 15}, {13, 64, 33, 29}};
  for (const auto& [rows, columns, width, offset] : shapes) {
    Problem p = random_problem(rows, columns, width, offset);
    p.grad = 0.5;
    this->check(p, kGemm);
  }
}

TYPED_TEST(InfoNceTest, RowsWithoutAnotherOfTheirLabel) {
  Problem p = random_problem(6, 6, 9, 0);
  for (int i = 0; i < 6; ++i)
    p.row_labels[static_cast<std::size_t>(i)] = p.column_labels[static_cast<std::size_t>(i)] = i;
  this->check(p, kGemm);
}

TYPED_TEST(InfoNceTest, MinimumIsMinusLogTwo) {
  // Own pairs are aligned and all others opposite, so only the diagonal contributes to both sums.
  Problem p{.rows = 2, .columns = 2, .width = 1, .zv = {1, -1}, .za = {1, -1}};
  p.row_labels = p.column_labels = {0, 1};
  p.temperature = 0.01;
  const Result got = this->compute(p);
  EXPECT_NEAR(got.loss, -std::log(2.0), 1e-7);
  for (const double g : got.dzv) EXPECT_NEAR(g, 0, 1e-6);
}

TYPED_TEST(InfoNceTest, TheFloorOf1e8CountsWhenEverySimilarityIsLow) {
  // S = −20 everywhere: e^{−20} is a fifth of 1e-8.
  Problem p{.rows = 2, .columns = 2, .width = 1, .temperature = 0.05, .zv = {1, 1}, .za = {-1, -1}};
  p.row_labels = p.column_labels = {0, 1};
  this->check(p, {1e-6, 1e-13});
  EXPECT_GT(this->compute(p).loss, 0.5);
}

TYPED_TEST(InfoNceTest, ExtremeSimilaritiesStayExact) {
  // S reaches ±1/temperature = ±2000 and ±10000: both e^{−m} and e^{S} overflow a double.
  for (const double temperature : {5e-4, 1e-4}) {
    for (const double sign : {1.0, -1.0}) {
      Problem p{.rows = 2, .columns = 3, .width = 1, .temperature = temperature};
      p.zv = {1, 0.5};
      p.za = {sign, 0.75 * sign, 0.625 * sign};
      p.row_labels = {0, 1};
      p.column_labels = {0, 1, 0};
      this->check(p, {1e-5, 1e-11});  // rounding of S = 10000 is 1e-12
      EXPECT_TRUE(std::isfinite(this->compute(p).loss));
    }
  }
}

TYPED_TEST(InfoNceTest, PositivesFarBelowTheBestNegativeDoNotVanish) {
  // Own pair at S = −2000, negative at +2000: the loss of the row is 4000 − ln 2.
  Problem p{.rows = 1, .columns = 2, .width = 1, .temperature = 5e-4, .zv = {1}, .za = {-1, 1}};
  p.row_labels = {0};
  p.column_labels = {0, 1};
  this->check(p, kGemm);
  EXPECT_NEAR(this->compute(p).loss, 4000 - std::log(2.0), 1e-3);
}

TYPED_TEST(InfoNceTest, NanShows) {
  Problem p = random_problem(4, 4, 3, 0);
  p.za[4] = NAN;
  EXPECT_TRUE(std::isnan(this->compute(p).loss));
}

TYPED_TEST(InfoNceTest, RanksTogetherGiveTheSingleRankGradient) {
  // Two ranks with three rows each and all six columns: the loss is the mean over the ranks, and the
  // gradients of the columns are summed.
  const Problem whole = random_problem(6, 6, 5, 0);
  const Result expected = this->compute(whole);
  double loss = 0;
  std::vector<double> dza(whole.za.size(), 0);
  std::vector<double> dzv;
  for (const std::int64_t rank : {0, 1}) {
    Problem part = whole;
    part.rows = 3;
    part.offset = 3 * rank;
    part.zv.assign(whole.zv.begin() + 15 * rank, whole.zv.begin() + 15 * (rank + 1));
    part.row_labels.assign(whole.row_labels.begin() + 3 * rank, whole.row_labels.begin() + 3 * (rank + 1));
    const Result got = this->compute(part);
    loss += got.loss / 2;
    for (std::size_t i = 0; i < dza.size(); ++i) dza[i] += got.dza[i] / 2;
    for (const double g : got.dzv) dzv.push_back(g / 2);
  }
  using Number = typename TypeParam::Element;
  const double tolerance = kGemm.of<Number>();
  // For 16-bit types, each of the three gradients is rounded once, by at most ε/2.
  const double rounding = kIsNarrow<Number> ? 1.5 * epsilon<Number>() : 0;
  EXPECT_NEAR(loss, expected.loss, tolerance);
  EXPECT_LE(normalised_error(dza, expected.dza), tolerance + rounding);
  EXPECT_LE(normalised_error(dzv, expected.dzv), tolerance + rounding);
}

TYPED_TEST(InfoNceTest, SameBitsForAnyThreadCount) {
  const Problem p = random_problem(67, 131, 33, 20);
  this->expect_same_bits_for_any_thread_count([&] {
    const Result result = this->compute(p);
    return concatenate(concatenate({result.loss}, result.dzv), result.dza);
  });
}

template <typename C>
class InfoNceGradient : public InfoNceTest<C> {};
TYPED_TEST_SUITE(InfoNceGradient, DoubleCases);

TYPED_TEST(InfoNceGradient, MatchesFiniteDifferences) {
  Problem p = random_problem(3, 5, 4, 1);
  p.temperature = 0.3;
  p.grad = 0.5;
  const Result got = this->compute(p);
  const auto loss_of_zv = [&](const std::vector<double>& zv) {
    Problem q = p;
    q.zv = zv;
    return 0.5 * this->compute(q).loss;
  };
  const auto loss_of_za = [&](const std::vector<double>& za) {
    Problem q = p;
    q.za = za;
    return 0.5 * this->compute(q).loss;
  };
  expect_gradient(loss_of_zv, p.zv, got.dzv, "dzv");
  expect_gradient(loss_of_za, p.za, got.dza, "dza");
}

}  // namespace
}  // namespace voca::kernels::testing
