#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/features.h"
#include "tests/kernels/support/backend.h"
#include "tests/kernels/support/buffer.h"
#include "tests/kernels/support/element.h"
#include "tests/kernels/support/tolerances.h"

// The fixture of every operation's test. Typical use:
//
//   template <typename C> class Gelu : public OpTest<C> {};
//   TYPED_TEST_SUITE(Gelu, Cases);
//   TYPED_TEST(Gelu, ForwardMatchesTheFormula) {
//     auto x = this->input(random_values(n, 1));     // read-only: must come back unchanged
//     auto y = this->output(n);                      // full of NaN
//     auto db = this->accumulated(random_values(k, 2));
//     run(typename TypeParam::Backend{}, {... x.data(), y.data() ...});
//     this->expect_close(y, reference(x.values()), kElementwise, "y");
//   }

namespace voca::kernels::testing {

/// n numbers uniform in [low, high), the same for the same seed.
inline std::vector<double> random_values(std::int64_t n, std::uint64_t seed, double low = -1,
                                         double high = 1) {
  std::mt19937_64 generator(seed * 0x9E3779B97F4A7C15U + 1);
  std::vector<double> values(static_cast<std::size_t>(n));
  for (double& value : values) value = low + (high - low) * static_cast<double>(generator() >> 11) * 0x1p-53;
  return values;
}

/// Fixtures of losses ask for their gradient's factor in two parts: grad / kLossScale, and a loss scale of
/// this, a power of two.
inline constexpr double kLossScale = 4;

/// max |got − want| / max |want|. NaN is met by NaN alone, and an infinity by itself.
template <typename T>
double normalised_error(const std::vector<T>& got, const std::vector<double>& want) {
  double largest = 0;
  double error = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double value = to_double(got[i]);
    if (std::isnan(want[i]) && std::isnan(value)) continue;
    if (std::isinf(want[i]) && value == want[i]) continue;
    if (!std::isfinite(want[i]) || !std::isfinite(value)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, std::abs(want[i]));
    error = std::max(error, std::abs(value - want[i]));
  }
  return error == 0 ? 0 : error / std::max(largest, std::numeric_limits<double>::min());
}

/// Expects `analytic` to be the derivative of f at x: central differences of fourth order, every element, the
/// error relative to the largest derivative.
inline void expect_gradient(const std::function<double(const std::vector<double>&)>& f,
                            const std::vector<double>& x, const std::vector<double>& analytic,
                            const std::string& what) {
  ASSERT_EQ(x.size(), analytic.size()) << what;
  constexpr double kStep = 1e-3;
  std::vector<double> numeric(x.size());
  std::vector<double> point = x;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto at = [&](double offset) {
      point[i] = x[i] + offset;
      return f(point);
    };
    numeric[i] = (8 * (at(kStep) - at(-kStep)) - (at(2 * kStep) - at(-2 * kStep))) / (12 * kStep);
    point[i] = x[i];
  }
  EXPECT_LE(normalised_error(analytic, numeric), kFiniteDifference) << what;
}

/// Σ w · y, the scalar whose gradient with respect to y is w.
inline double weighted_sum_of(const std::vector<double>& w, const std::vector<double>& y) {
  double sum = 0;
  for (std::size_t i = 0; i < y.size(); ++i) sum += w[i] * y[i];
  return sum;
}

template <typename TestCase>
class OpTest : public ::testing::Test {
 public:
  using CaseBackend = typename TestCase::Backend;
  using CaseElement = typename TestCase::Element;
  template <typename U>
  using BufferOf = Buffer<CaseBackend, U>;

 protected:
  OpTest() : threads_before_(cpu::threads()) {}
  void SetUp() override {
    if (CaseBackend::unavailable() != nullptr) GTEST_SKIP() << CaseBackend::unavailable();
  }
  void TearDown() override { cpu::set_threads(threads_before_); }

  /// An array of U (by default the element type) the operation only reads.
  template <typename U = CaseElement, typename V = double>
  [[nodiscard]] BufferOf<U> input(const std::vector<V>& values) {
    return BufferOf<U>(convert<U>(values), Access::kRead);
  }
  /// An array the operation overwrites, poisoned with NaN (integers: their least value).
  template <typename U = CaseElement>
  [[nodiscard]] BufferOf<U> output(std::int64_t n) {
    return BufferOf<U>(std::vector<U>(static_cast<std::size_t>(n), poison<U>()), Access::kWrite);
  }
  /// An array the operation accumulates into or updates in place.
  template <typename U = CaseElement, typename V = double>
  [[nodiscard]] BufferOf<U> accumulated(const std::vector<V>& values) {
    return BufferOf<U>(convert<U>(values), Access::kWrite);
  }

  /// The error an array of U may have: the tolerance, and for 16-bit U beside it twice the error of `naive`,
  /// what a computation without care gives that rounds to U at every step.
  template <typename U = CaseElement>
  [[nodiscard]] static double allowed_error(const std::vector<double>& want, const std::vector<double>& naive,
                                            Tolerance tolerance) {
    const double wide = tolerance.of<CaseElement>();
    return kIsNarrow<U> ? wide + 2 * normalised_error(naive, want) : wide;
  }
  /// The same where the naive computation rounds its result alone: the strictest of them.
  template <typename U = CaseElement>
  [[nodiscard]] static double allowed_error(const std::vector<double>& want, Tolerance tolerance) {
    return allowed_error<U>(want, rounded_to<CaseElement>(want), tolerance);
  }

  template <typename U>
  void expect_close(const BufferOf<U>& got, const std::vector<double>& want, Tolerance tolerance,
                    const std::string& what) {
    ASSERT_EQ(got.size(), want.size()) << what;
    EXPECT_LE(normalised_error(got.values(), want), allowed_error<U>(want, tolerance)) << what;
  }
  template <typename U>
  void expect_close(const BufferOf<U>& got, const std::vector<double>& want, const std::vector<double>& naive,
                    Tolerance tolerance, const std::string& what) {
    ASSERT_EQ(got.size(), want.size()) << what;
    EXPECT_LE(normalised_error(got.values(), want), allowed_error<U>(want, naive, tolerance)) << what;
  }

  /// Expects f() to return the same bits for every number of threads; where threads do not concern the
  /// backend, twice in a row. f returns the concatenated raw() of the outputs.
  template <typename F>
  void expect_same_bits_for_any_thread_count(F f) {
    cpu::set_threads(1);
    const auto once = f();
    ASSERT_FALSE(once.empty());
    for (const int n : {2, 3, 5}) {
      cpu::set_threads(n);
      const auto again = f();
      ASSERT_EQ(once.size(), again.size());
      EXPECT_EQ(std::memcmp(once.data(), again.data(), once.size() * sizeof(once[0])), 0) << n << " threads";
      if (!CaseBackend::kThreaded) break;
    }
  }

 private:
  template <typename U, typename V>
  static std::vector<U> convert(const std::vector<V>& values) {
    std::vector<U> converted;
    converted.reserve(values.size());
    for (const V value : values) converted.push_back(convert_one<U>(value));
    return converted;
  }
  template <typename U, typename V>
  static U convert_one(V value) {
    if constexpr (kIsNarrow<U>) {
      return from_double<U>(static_cast<double>(value));
    } else {
      return static_cast<U>(value);
    }
  }
  template <typename U>
  static U poison() {
    if constexpr (std::is_integral_v<U>) {
      return std::numeric_limits<U>::min();
    } else {
      return from_double<U>(std::numeric_limits<double>::quiet_NaN());
    }
  }

  int threads_before_;
};

/// a followed by b.
template <typename T>
std::vector<T> concatenate(std::vector<T> a, const std::vector<T>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace voca::kernels::testing
