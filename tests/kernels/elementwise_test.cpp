#include "kernels/elementwise.h"

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

constexpr std::int64_t kSizes[] = {0, 1, 7, 64, 1009, 40000};

template <typename C>
class Elementwise : public OpTest<C> {};
TYPED_TEST_SUITE(Elementwise, Cases);

TYPED_TEST(Elementwise, WeightedSumAlsoInPlace) {
  using Element = typename TypeParam::Element;
  const typename TypeParam::Backend backend;
  for (const std::int64_t n : kSizes) {
    const std::vector<double> first = random_values(n, 1);
    const std::vector<double> second = random_values(n, 2);
    auto a = this->input(first);
    auto b = this->input(second);
    auto out = this->output(n);
    auto scaled_out = this->output(n);
    auto over_a = this->accumulated(first);
    auto over_b = this->accumulated(second);
    auto both = this->accumulated(first);
    const std::vector<double> addend = b.values();
    std::vector<double> sum = a.values();
    std::vector<double> scaled = a.values();
    for (std::size_t i = 0; i < sum.size(); ++i) {
      sum[i] = 0.5 * sum[i] - 1.5 * addend[i];
      scaled[i] *= 0.5;
    }
    weighted_sum<Element>(backend, {n, 0.5, a.data(), -1.5, b.data(), out.data()});
    weighted_sum<Element>(backend, {n, 0.5, a.data(), 7, nullptr, scaled_out.data()});
    weighted_sum<Element>(backend, {n, 0.5, over_a.data(), -1.5, b.data(), over_a.data()});
    weighted_sum<Element>(backend, {n, 0.5, a.data(), -1.5, over_b.data(), over_b.data()});
    weighted_sum<Element>(backend, {n, 0.25, both.data(), 0.25, both.data(), both.data()});
    this->expect_close(out, sum, kElementwise, "sum");
    this->expect_close(scaled_out, scaled, kElementwise, "scaled");
    this->expect_close(both, scaled, kElementwise, "twice the same array");
    EXPECT_EQ(over_a.raw(), out.raw());
    EXPECT_EQ(over_b.raw(), out.raw());
  }
}

TYPED_TEST(Elementwise, WeightedSumKeepsNan) {
  auto a = this->input(std::vector<double>{1, NAN, 3});
  auto b = this->input(std::vector<double>{INFINITY, 2, 3});
  auto out = this->output(3);
  weighted_sum<typename TypeParam::Element>(typename TypeParam::Backend{},
                                            {3, 1, a.data(), 0, b.data(), out.data()});
  this->expect_close(out, {NAN, NAN, 3}, {0, 0}, "0 · Inf, NaN");
}

TYPED_TEST(Elementwise, WideSumOverwritesOrAddsAndRoundsToNothingNarrower) {
  using Element = typename TypeParam::Element;
  using Wide = Stat<Element>;
  const typename TypeParam::Backend backend;
  for (const std::int64_t n : kSizes) {
    auto from = this->input(random_values(n, 1));
    auto sum = this->template output<Wide>(n);
    wide_sum<Element>(backend, {n, from.data(), false, sum.data()});
    EXPECT_EQ(sum.values(), from.values());
    auto more = this->template accumulated<Wide>(random_values(n, 2));
    std::vector<double> expected = more.values();
    const std::vector<double> addend = from.values();
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] = static_cast<double>(static_cast<Wide>(expected[i] + addend[i]));
    wide_sum<Element>(backend, {n, from.data(), true, more.data()});
    EXPECT_EQ(more.values(), expected);
  }
}

TYPED_TEST(Elementwise, FillWritesEveryElement) {
  using Element = typename TypeParam::Element;
  for (const std::int64_t n : kSizes) {
    auto out = this->output(n);
    fill(typename TypeParam::Backend{}, n, from_double<Element>(-3), out.data());
    EXPECT_EQ(out.values(), std::vector<double>(static_cast<std::size_t>(n), -3));
  }
}

TYPED_TEST(Elementwise, CastRoundsToNearestAndBackIsExact) {
  using Element = typename TypeParam::Element;
  const typename TypeParam::Backend backend;
  for (const std::int64_t n : kSizes) {
    auto from = this->template input<float>(random_values(n, 4));
    auto to = this->output(n);
    auto back = this->template output<float>(n);
    cast(backend, n, from.data(), to.data());
    cast(backend, n, to.data(), back.data());
    EXPECT_EQ(to.values(), rounded_to<Element>(from.values()));
    EXPECT_EQ(back.values(), to.values());
  }
}

TYPED_TEST(Elementwise, SameBitsForAnyThreadCount) {
  using Element = typename TypeParam::Element;
  const typename TypeParam::Backend backend;
  const std::int64_t n = 100003;
  this->expect_same_bits_for_any_thread_count([&] {
    auto a = this->input(random_values(n, 5));
    auto sum = this->output(n);
    auto filled = this->output(n);
    auto converted = this->template output<float>(n);
    weighted_sum<Element>(backend, {n, 0.3, a.data(), 0.7, a.data(), sum.data()});
    fill(backend, n, from_double<Element>(2), filled.data());
    cast(backend, n, a.data(), converted.data());
    return concatenate(concatenate(sum.values(), filled.values()), converted.values());
  });
}

// Only the CPU backend supports double.
template <typename C>
class WideCast : public OpTest<C> {};
TYPED_TEST_SUITE(WideCast, DoubleCases);

TYPED_TEST(WideCast, DoubleToFloatTiesGoToEven) {
  constexpr auto nan = std::numeric_limits<double>::quiet_NaN();
  constexpr auto infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> from = {1 + 0x1p-24, 1 + 0x3p-24, 1 + 0x1p-24 + 0x1p-50, 1e300, -1e300, 0x1p-149,
                                    0x1p-150,    nan};
  const std::vector<double> expected = {1, 1 + 0x1p-22, 1 + 0x1p-23, infinity, -infinity, 0x1p-149, 0, nan};
  auto in = this->input(from);
  auto to = this->template output<float>(std::ssize(from));
  cast(typename TypeParam::Backend{}, std::ssize(from), in.data(), to.data());
  EXPECT_EQ(normalised_error(to.raw(), expected), 0);
}

}  // namespace
}  // namespace voca::kernels::testing
