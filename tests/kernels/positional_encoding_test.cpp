#include "kernels/positional_encoding.h"

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

struct Shape {
  std::int64_t batch;
  std::int64_t length;
  std::int64_t columns;
};

constexpr Shape kShapes[] = {{1, 1, 1}, {7, 1, 13}, {1, 37, 5}, {3, 71, 229}, {16, 128, 64}, {5, 3, 5003}};

template <typename C>
class PositionalEncodingTest : public OpTest<C> {};
TYPED_TEST_SUITE(PositionalEncodingTest, Cases);

TYPED_TEST(PositionalEncodingTest, AddsItsRowToEveryFrame) {
  using Element = typename TypeParam::Element;
  for (const Shape& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.batch << " x " << s.length << " x " << s.columns);
    const std::int64_t n = s.batch * s.length * s.columns;
    auto x = this->input(random_values(n, 1));
    auto encoding = this->input(random_values(s.length * s.columns, 2));
    auto y = this->output(n);
    std::vector<double> want = x.values();
    const auto row = encoding.values();
    for (std::size_t i = 0; i < want.size(); ++i) want[i] += row[i % row.size()];
    positional_encoding_forward(typename TypeParam::Backend{},
                                PositionalEncodingForward<Element>{s.batch, s.length, s.columns, x.data(),
                                                                   encoding.data(), y.data()});
    this->expect_close(y, want, kElementwise, "y");
    auto in_place = this->accumulated(random_values(n, 1));
    positional_encoding_forward(
        typename TypeParam::Backend{},
        PositionalEncodingForward<Element>{s.batch, s.length, s.columns, in_place.data(), encoding.data(),
                                           in_place.data()});
    EXPECT_EQ(in_place.raw(), y.raw());
  }
}

TYPED_TEST(PositionalEncodingTest, BackwardAddsTheSumOverTheBatch) {
  using Element = typename TypeParam::Element;
  for (const Shape& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.batch << " x " << s.length << " x " << s.columns);
    auto dy = this->input(random_values(s.batch * s.length * s.columns, 1));
    const auto before = random_values(s.length * s.columns, 2);
    auto dencoding = this->accumulated(before);
    std::vector<double> want = dencoding.values();
    const auto dyv = dy.values();
    for (std::size_t i = 0; i < dyv.size(); ++i) want[i % want.size()] += dyv[i];
    positional_encoding_backward(
        typename TypeParam::Backend{},
        PositionalEncodingBackward<Element>{s.batch, s.length, s.columns, dy.data(), dencoding.data()});
    this->expect_close(dencoding, want, kReduction, "dencoding");
    this->expect_same_bits_for_any_thread_count([&] {
      auto again = this->accumulated(before);
      positional_encoding_backward(
          typename TypeParam::Backend{},
          PositionalEncodingBackward<Element>{s.batch, s.length, s.columns, dy.data(), again.data()});
      return again.raw();
    });
  }
}

TYPED_TEST(PositionalEncodingTest, SinusoidalIsThatOfTheTransformer) {
  const std::int64_t length = 300;
  const std::int64_t columns = 37;
  auto encoding = this->output(length * columns);
  sinusoidal_encoding(typename TypeParam::Backend{}, length, columns, encoding.data());
  std::vector<double> want;
  for (std::int64_t t = 0; t < length; ++t) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const double wavelength =
          std::exp(std::log(10000.0) * static_cast<double>(2 * (j / 2)) / static_cast<double>(columns));
      const double angle = static_cast<double>(t) / wavelength;
      want.push_back(j % 2 == 0 ? std::sin(angle) : std::cos(angle));
    }
  }
  this->expect_close(encoding, want, Tolerance{1e-7, 1e-12}, "encoding");
}

}  // namespace
}  // namespace voca::kernels::testing
