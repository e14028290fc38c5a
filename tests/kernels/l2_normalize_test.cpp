#include "kernels/l2_normalize.h"

#include "tests/kernels/support/op_test.h"

namespace voca::kernels::testing {
namespace {

constexpr std::int64_t kShapes[][2] = {{1, 1},     {1, 256}, {5, 7},  {64, 256},
                                       {3, 20011}, {2, 15},  {2, 16}, {131, 17}};

/// Forward and backward of torch.nn.functional.normalize by its formulas; backward reads z rounded to Saved.
template <typename Saved>
struct Reference {
  std::vector<double> z, norm, dx;
  Reference(const std::vector<double>& x, const std::vector<double>& dz, std::int64_t rows,
            std::int64_t columns) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto at = [&](std::int64_t j) { return static_cast<std::size_t>(r * columns + j); };
      double square = 0;
      for (std::int64_t j = 0; j < columns; ++j) square += x[at(j)] * x[at(j)];
      norm.push_back(std::sqrt(square));
      const double divisor = std::max(norm.back(), 1e-12);
      double dot = 0;
      for (std::int64_t j = 0; j < columns; ++j) {
        z.push_back(to_double(from_double<Saved>(x[at(j)] / divisor)));
        dot += dz[at(j)] * z.back();
      }
      if (norm.back() <= 1e-12) dot = 0;
      for (std::int64_t j = 0; j < columns; ++j) dx.push_back((dz[at(j)] - z[at(j)] * dot) / divisor);
    }
  }
};

template <typename C>
class L2Normalize : public OpTest<C> {
 protected:
  /// Runs forward, then backward with dx separate from dz and in place, and compares all outputs with
  /// Reference.
  void check(const std::vector<double>& x_values, const std::vector<double>& dz_values, std::int64_t rows,
             std::int64_t columns) {
    using Element = typename C::Element;
    const typename C::Backend backend;
    auto x = this->input(x_values);
    auto dz = this->input(dz_values);
    auto z = this->output(rows * columns);
    auto norm = this->template output<Stat<Element>>(rows);
    auto dx = this->output(rows * columns);
    auto in_place = this->accumulated(dz_values);
    l2_normalize_forward<Element>(
        backend, L2NormalizeForward<Element>{rows, columns, x.data(), z.data(), norm.data()});
    l2_normalize_backward<Element>(
        backend, L2NormalizeBackward<Element>{rows, columns, dz.data(), z.data(), norm.data(), dx.data()});
    l2_normalize_backward<Element>(
        backend,
        L2NormalizeBackward<Element>{rows, columns, in_place.data(), z.data(), norm.data(), in_place.data()});
    const Reference<double> expected(x.values(), dz.values(), rows, columns);
    const Reference<Element> naive(x.values(), dz.values(), rows, columns);
    this->expect_close(z, expected.z, kReduction, "z");
    this->expect_close(norm, expected.norm, kReduction, "norm");
    this->expect_close(dx, expected.dx, rounded_to<Element>(naive.dx), kReduction, "dx");
    EXPECT_EQ(normalised_error(in_place.values(), dx.values()), 0);
  }
};
TYPED_TEST_SUITE(L2Normalize, Cases);

TYPED_TEST(L2Normalize, MatchesTheFormulasAlsoInPlace) {
  for (const auto& [rows, columns] : kShapes) {
    this->check(random_values(rows * columns, 1, -3, 5), random_values(rows * columns, 2), rows, columns);
  }
}

TYPED_TEST(L2Normalize, ZeroTinyAndHugeRows) {
  // One row per call, because errors are relative to the largest element: zero, below eps, just above eps,
  // and rows whose squares overflow or underflow a float.
  const std::vector<std::vector<double>> rows = {{0, 0},       {3e-13, 4e-13}, {3e-12, 4e-12},
                                                 {3e30, 4e30}, {3e-30, 0},     {3e-10, 4e-10}};
  for (const std::vector<double>& row : rows) this->check(row, {1, -2}, 1, 2);
}

TYPED_TEST(L2Normalize, NanFillsItsRowOnly) {
  this->check({3, 4, NAN, 1}, {1, 1, 1, 1}, 2, 2);
}

TYPED_TEST(L2Normalize, SameBitsForAnyThreadCount) {
  using Element = typename TypeParam::Element;
  const typename TypeParam::Backend backend;
  this->expect_same_bits_for_any_thread_count([&] {
    auto x = this->input(random_values(std::int64_t{267} * 129, 5));
    auto z = this->output(267 * 129);
    auto norm = this->template output<Stat<Element>>(267);
    auto dx = this->output(267 * 129);
    l2_normalize_forward(backend, L2NormalizeForward<Element>{267, 129, x.data(), z.data(), norm.data()});
    l2_normalize_backward(backend,
                          L2NormalizeBackward<Element>{267, 129, x.data(), z.data(), norm.data(), dx.data()});
    return concatenate(z.raw(), dx.raw());
  });
}

template <typename C>
class L2NormalizeGradient : public OpTest<C> {};
TYPED_TEST_SUITE(L2NormalizeGradient, DoubleCases);

TYPED_TEST(L2NormalizeGradient, MatchesFiniteDifferences) {
  const typename TypeParam::Backend backend;
  const std::vector<double> x = random_values(15, 3, 0.5, 2);
  const std::vector<double> weights = random_values(15, 4);
  const auto loss = [&](const std::vector<double>& point) {
    auto in = this->input(point);
    auto z = this->output(15);
    auto norm = this->output(3);
    l2_normalize_forward(backend, L2NormalizeForward<double>{3, 5, in.data(), z.data(), norm.data()});
    return weighted_sum_of(weights, z.values());
  };
  auto in = this->input(x);
  auto z = this->output(15);
  auto norm = this->output(3);
  auto dz = this->input(weights);
  auto dx = this->output(15);
  l2_normalize_forward(backend, L2NormalizeForward<double>{3, 5, in.data(), z.data(), norm.data()});
  l2_normalize_backward(backend,
                        L2NormalizeBackward<double>{3, 5, dz.data(), z.data(), norm.data(), dx.data()});
  expect_gradient(loss, x, dx.values(), "dx");
}

}  // namespace
}  // namespace voca::kernels::testing
