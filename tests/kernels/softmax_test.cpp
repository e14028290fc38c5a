#include "kernels/softmax.h"

#include "tests/kernels/support/dropout.h"
#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

struct Shape {
  std::int64_t batch;
  std::int64_t query_length;
  std::int64_t key_length;
  [[nodiscard]] std::int64_t size() const { return batch * query_length * key_length; }
};

constexpr Shape kShapes[] = {{1, 1, 1},   {3, 1, 37},   {2, 37, 1},   {3, 16, 16},
                             {2, 17, 33}, {5, 71, 229}, {2, 130, 64}, {1, 3, 1031}};
const Dropout kDropouts[] = {{}, test_dropout(0.1), test_dropout(0.5, 9, 5)};

struct Reference {
  std::vector<double> probabilities;
  std::vector<double> dropped;
};

// Forward by its formulas; probabilities are rounded to Stored before dropout.
template <typename Stored = double>
Reference reference_forward(const Shape& s, double scale, const std::vector<double>& scores,
                            const Dropout& dropout) {
  Reference out{std::vector<double>(scores.size()), std::vector<double>(scores.size())};
  for (std::int64_t row = 0; row < s.batch * s.query_length; ++row) {
    double most = -std::numeric_limits<double>::infinity();
    for (std::int64_t j = 0; j < s.key_length; ++j)
      most = std::max(most, scale * scores[at(row * s.key_length + j)]);
    double sum = 0;
    for (std::int64_t j = 0; j < s.key_length; ++j)
      sum += std::exp(scale * scores[at(row * s.key_length + j)] - most);
    for (std::int64_t j = 0; j < s.key_length; ++j) {
      const std::size_t e = at(row * s.key_length + j);
      out.probabilities[e] = to_double(from_double<Stored>(std::exp(scale * scores[e] - most) / sum));
      out.dropped[e] =
          out.probabilities[e] * reference_factor(dropout, row / s.query_length, row % s.query_length, j,
                                                  s.query_length, s.key_length);
    }
  }
  return out;
}

template <typename C>
class SoftmaxTest : public OpTest<C> {};
TYPED_TEST_SUITE(SoftmaxTest, Cases);

TYPED_TEST(SoftmaxTest, ForwardMatchesTheFormula) {
  using Element = typename TypeParam::Element;
  for (const Shape& s : kShapes) {
    for (const Dropout& dropout : kDropouts) {
      for (const double scale : {0.125, -0.5}) {
        SCOPED_TRACE(::testing::Message() << s.batch << " x " << s.query_length << " x " << s.key_length
                                          << ", threshold " << dropout.threshold);
        auto scores = this->input(random_values(s.size(), 1, -30, 30));
        auto probabilities = this->output(s.size());
        auto dropped = this->output(s.size());
        softmax_forward(typename TypeParam::Backend{},
                        SoftmaxForward<Element>{s.batch, s.query_length, s.key_length, scale, scores.data(),
                                                dropout, probabilities.data(), dropped.data()});
        const Reference want = reference_forward(s, scale, scores.values(), dropout);
        this->expect_close(probabilities, want.probabilities, kReduction, "probabilities");
        const Reference naive = reference_forward<Element>(s, scale, scores.values(), dropout);
        this->expect_close(dropped, want.dropped, rounded_to<Element>(naive.dropped), kReduction, "dropped");
        if (dropout.enabled()) continue;
        auto in_place = this->accumulated(random_values(s.size(), 1, -30, 30));
        softmax_forward(typename TypeParam::Backend{},
                        SoftmaxForward<Element>{s.batch, s.query_length, s.key_length, scale, in_place.data(),
                                                dropout, in_place.data(), nullptr});
        EXPECT_EQ(in_place.raw(), probabilities.raw());
      }
    }
  }
}

TYPED_TEST(SoftmaxTest, HugeScoresDoNotOverflow) {
  using Element = typename TypeParam::Element;
  auto scores = this->input(std::vector<double>{8192, 8192, -8192, -std::numeric_limits<double>::infinity()});
  auto probabilities = this->output(4);
  softmax_forward(typename TypeParam::Backend{},
                  SoftmaxForward<Element>{1, 1, 4, 1.0, scores.data(), {}, probabilities.data(), nullptr});
  EXPECT_EQ(probabilities.values(), (std::vector<double>{0.5, 0.5, 0, 0}));
}

TYPED_TEST(SoftmaxTest, NotANumberSpreadsToItsRowAndNoFurther) {
  using Element = typename TypeParam::Element;
  std::vector<double> values = random_values(5 * 40, 1);
  values[2 * 40 + 33] = std::nan("");
  auto scores = this->input(values);
  auto probabilities = this->output(5 * 40);
  auto dropped = this->output(5 * 40);
  softmax_forward(typename TypeParam::Backend{},
                  SoftmaxForward<Element>{1, 5, 40, 1.0, scores.data(), test_dropout(0.5),
                                          probabilities.data(), dropped.data()});
  const auto got = dropped.values();
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(std::isnan(got[i]), i / 40 == 2) << i;
}

TYPED_TEST(SoftmaxTest, BackwardMatchesTheFormula) {
  using Element = typename TypeParam::Element;
  for (const Shape& s : kShapes) {
    for (const Dropout& dropout : kDropouts) {
      SCOPED_TRACE(::testing::Message() << s.batch << " x " << s.query_length << " x " << s.key_length
                                        << ", threshold " << dropout.threshold);
      const double scale = 0.3;
      auto p = this->input(reference_forward(s, scale, random_values(s.size(), 1, -5, 5), {}).probabilities);
      auto ddropped = this->input(random_values(s.size(), 2));
      auto dscores = this->output(s.size());
      softmax_backward(typename TypeParam::Backend{},
                       SoftmaxBackward<Element>{s.batch, s.query_length, s.key_length, scale, ddropped.data(),
                                                p.data(), dropout, dscores.data()});
      const auto pv = p.values();
      const auto dv = ddropped.values();
      std::vector<double> want(at(s.size()));
      for (std::int64_t row = 0; row < s.batch * s.query_length; ++row) {
        const auto dp = [&](std::int64_t j) {
          return dv[at(row * s.key_length + j)] * reference_factor(dropout, row / s.query_length,
                                                                   row % s.query_length, j, s.query_length,
                                                                   s.key_length);
        };
        double dot = 0;
        for (std::int64_t j = 0; j < s.key_length; ++j) dot += dp(j) * pv[at(row * s.key_length + j)];
        for (std::int64_t j = 0; j < s.key_length; ++j)
          want[at(row * s.key_length + j)] = scale * pv[at(row * s.key_length + j)] * (dp(j) - dot);
      }
      // With one key, the exact gradient is 0 and the result is only cancellation error.
      if (s.key_length > 1) this->expect_close(dscores, want, kReduction, "dscores");
      auto in_place = this->accumulated(random_values(s.size(), 2));
      softmax_backward(typename TypeParam::Backend{},
                       SoftmaxBackward<Element>{s.batch, s.query_length, s.key_length, scale, in_place.data(),
                                                p.data(), dropout, in_place.data()});
      EXPECT_EQ(in_place.raw(), dscores.raw());
    }
  }
}

TYPED_TEST(SoftmaxTest, BitsDoNotDependOnTheThreads) {
  using Element = typename TypeParam::Element;
  const Shape s{3, 71, 229};
  auto scores = this->input(random_values(s.size(), 1, -5, 5));
  auto ddropped = this->input(random_values(s.size(), 2));
  this->expect_same_bits_for_any_thread_count([&] {
    auto p = this->output(s.size());
    auto dropped = this->output(s.size());
    auto dscores = this->output(s.size());
    softmax_forward(typename TypeParam::Backend{},
                    SoftmaxForward<Element>{s.batch, s.query_length, s.key_length, 0.5, scores.data(),
                                            test_dropout(0.1), p.data(), dropped.data()});
    softmax_backward(typename TypeParam::Backend{},
                     SoftmaxBackward<Element>{s.batch, s.query_length, s.key_length, 0.5, ddropped.data(),
                                              p.data(), test_dropout(0.1), dscores.data()});
    return concatenate(dropped.raw(), dscores.raw());
  });
}

template <typename C>
class SoftmaxDerivative : public OpTest<C> {};
TYPED_TEST_SUITE(SoftmaxDerivative, DoubleCases);

TYPED_TEST(SoftmaxDerivative, BackwardIsTheDerivativeOfForward) {
  using Backend = typename TypeParam::Backend;
  const Shape s{2, 5, 18};
  const auto scores = random_values(s.size(), 1, -2, 2);
  const auto w = random_values(s.size(), 2);
  for (const Dropout& dropout : kDropouts) {
    const auto forward = [&](const std::vector<double>& point, std::vector<double>& probabilities) {
      auto in = this->input(point);
      auto p = this->output(s.size());
      auto dropped = this->output(s.size());
      softmax_forward(Backend{}, SoftmaxForward<double>{s.batch, s.query_length, s.key_length, 0.7, in.data(),
                                                        dropout, p.data(), dropped.data()});
      probabilities = p.values();
      return weighted_sum_of(w, dropped.values());
    };
    std::vector<double> probabilities;
    forward(scores, probabilities);
    auto p = this->input(probabilities);
    auto dy = this->input(w);
    auto dscores = this->output(s.size());
    softmax_backward(Backend{}, SoftmaxBackward<double>{s.batch, s.query_length, s.key_length, 0.7, dy.data(),
                                                        p.data(), dropout, dscores.data()});
    std::vector<double> unused;
    expect_gradient([&](const auto& point) { return forward(point, unused); }, scores, dscores.values(),
                    "dscores");
  }
}

}  // namespace
}  // namespace voca::kernels::testing
