#include "kernels/bias_gradient.h"

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

template <typename C>
class BiasGradientTest : public OpTest<C> {};
TYPED_TEST_SUITE(BiasGradientTest, Cases);

TYPED_TEST(BiasGradientTest, AddsTheSumOfTheRows) {
  using T = typename TypeParam::Element;
  const std::pair<std::int64_t, std::int64_t> shapes[] = {{1, 1},    {1, 129},    {257, 1},
                                                          {255, 64}, {1031, 191}, {4099, 320}};
  for (const auto& shape : shapes) {
    const std::int64_t rows = shape.first;
    const std::int64_t columns = shape.second;
    SCOPED_TRACE(::testing::Message() << rows << " x " << columns);
    auto dy = this->input(random_values(rows * columns, 1));
    auto dbias = this->accumulated(random_values(columns, 2));
    std::vector<double> want = dbias.values();
    Scratch<typename TypeParam::Backend> scratch(
        scratch_bytes(typename TypeParam::Backend{}, BiasGradient<T>{.rows = rows, .columns = columns}));
    const auto dyv = dy.values();
    for (std::int64_t i = 0; i < rows * columns; ++i) want[at(i % columns)] += dyv[at(i)];
    bias_gradient(typename TypeParam::Backend{},
                  BiasGradient<T>{rows, columns, dy.data(), dbias.data(), scratch.data()});
    this->expect_close(dbias, want, kReduction, "dbias");
    this->expect_same_bits_for_any_thread_count([&] {
      auto again = this->accumulated(random_values(columns, 2));
      bias_gradient(typename TypeParam::Backend{},
                    BiasGradient<T>{rows, columns, dy.data(), again.data(), scratch.data()});
      return again.raw();
    });
  }
}

}  // namespace
}  // namespace voca::kernels::testing
