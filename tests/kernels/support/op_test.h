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

#include "kernels/cpu/parallel.h"
#include "tests/kernels/support/backend.h"
#include "tests/kernels/support/buffer.h"
#include "tests/kernels/support/element.h"
#include "tests/kernels/support/tolerances.h"

// Fixture for the tests of an operation. Typical use:
//
//   template <typename C> class Gelu : public OpTest<C> {};
//   TYPED_TEST_SUITE(Gelu, Cases);
//   TYPED_TEST(Gelu, ForwardMatchesTheFormula) {
//     auto x = this->input(random_values(n, 1));     // read-only: must stay unchanged
//     auto y = this->output(n);                      // filled with NaN
//     auto db = this->accumulated(random_values(k, 2));
//     gelu_forward(typename TypeParam::Backend{}, GeluForward<T>{... x.data(), y.data() ...});
//     this->expect_close(y, reference(x.values()), kElementwise, "y");
//   }

namespace voca::kernels::testing {

/// n uniform random numbers in [low, high), determined by the seed.
inline std::vector<double> random_values(std::int64_t n, std::uint64_t seed, double low = -1,
                                         double high = 1) {
  std::mt19937_64 generator(seed * 0x9E3779B97F4A7C15U + 1);
  std::vector<double> values(static_cast<std::size_t>(n));
  for (double& value : values) value = low + (high - low) * static_cast<double>(generator() >> 11) * 0x1p-53;
  return values;
}

/// Loss scale used by the fixtures of losses, a power of two. They pass the gradient factor as grad /
/// kLossScale and this loss scale.
inline constexpr double kLossScale = 4;

/// max |got − want| / max |want|. NaN matches only NaN, and an infinity matches only itself.
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

/// Expects `analytic` to be the gradient of f at x. Checks every element with fourth-order central
/// differences; the error is relative to the largest derivative.
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

/// Σ w · y, a scalar whose gradient with respect to y is w.
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

  /// Array of U (by default the element type) that the operation only reads.
  template <typename U = CaseElement, typename V = double>
  [[nodiscard]] BufferOf<U> input(const std::vector<V>& values) {
    return BufferOf<U>(convert<U>(values), Access::kRead);
  }
  /// Array that the operation overwrites, filled with NaN (integers: the minimum value).
  template <typename U = CaseElement>
  [[nodiscard]] BufferOf<U> output(std::int64_t n) {
    return BufferOf<U>(std::vector<U>(static_cast<std::size_t>(n), poison<U>()), Access::kWrite);
  }
  /// Array that the operation accumulates into or updates in place.
  template <typename U = CaseElement, typename V = double>
  [[nodiscard]] BufferOf<U> accumulated(const std::vector<V>& values) {
    return BufferOf<U>(convert<U>(values), Access::kWrite);
  }

  /// Maximum error of an array of U: the tolerance, plus for 16-bit U twice the error of `naive`, the result
  /// of a naive computation that rounds to U at every step.
  template <typename U = CaseElement>
  [[nodiscard]] static double allowed_error(const std::vector<double>& want, const std::vector<double>& naive,
                                            Tolerance tolerance) {
    const double wide = tolerance.of<CaseElement>();
    return kIsNarrow<U> ? wide + 2 * normalised_error(naive, want) : wide;
  }
  /// allowed_error for a naive computation that rounds only its result, the strictest choice.
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

  /// Expects f() to return the same bits for every number of threads, or in two consecutive calls if the
  /// backend is not threaded. f returns the concatenated raw() of the outputs.
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

/// Returns a followed by b.
template <typename T>
std::vector<T> concatenate(std::vector<T> a, const std::vector<T>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace voca::kernels::testing
