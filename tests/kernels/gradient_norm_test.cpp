#include "kernels/gradient_norm.h"

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

template <typename C>
class GradientNormTest : public OpTest<C> {
 protected:
  std::vector<double> norm_of(const std::vector<double>& values) {
    using Element = typename C::Element;
    const auto n = static_cast<std::int64_t>(values.size());
    auto gradient = this->input(values);
    auto norm = this->template output<Stat<Element>>(1);
    Scratch<typename C::Backend> scratch(
        scratch_bytes(typename C::Backend{}, GradientNorm<Element>{.elements = n}));
    gradient_norm<Element>(typename C::Backend{}, {n, gradient.data(), norm.data(), scratch.data()});
    return norm.values();
  }

  void check(const std::vector<double>& values) {
    double square = 0;
    for (const double value : rounded_to<typename C::Element>(values)) square += value * value;
    EXPECT_LE(normalised_error(norm_of(values), {std::sqrt(square)}), kElementwise.of<typename C::Element>())
        << values.size();
  }
};
TYPED_TEST_SUITE(GradientNormTest, Cases);

TYPED_TEST(GradientNormTest, IsTheRootOfTheSumOfSquares) {
  for (const std::int64_t n : {0, 1, 2, 15, 17, 1009, 16384, 16385, 100003}) {
    this->check(random_values(n, 1, -2, 3));
  }
}

TYPED_TEST(GradientNormTest, SquaresNeitherOverflowNorVanishInFloat) {
  this->check({3e30, 4e30});
  this->check({3e-30, 4e-30});
}

TYPED_TEST(GradientNormTest, ANanOrInfinityAnywhereShows) {
  const std::int64_t n = 50000;
  for (const std::size_t place : {std::size_t{0}, std::size_t{16384}, std::size_t{49999}}) {
    std::vector<double> values = random_values(n, 2);
    values[place] = std::numeric_limits<double>::quiet_NaN();
    EXPECT_TRUE(std::isnan(this->norm_of(values)[0])) << place;
    values[place] = -std::numeric_limits<double>::infinity();
    EXPECT_EQ(this->norm_of(values)[0], INFINITY) << place;
  }
}

TYPED_TEST(GradientNormTest, SameBitsForAnyThreadCount) {
  const std::vector<double> values = random_values(200003, 3);
  this->expect_same_bits_for_any_thread_count([&] { return this->norm_of(values); });
}

}  // namespace
}  // namespace voca::kernels::testing
