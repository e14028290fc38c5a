#include "kernels/cpu/math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tests/kernels/cpu/math_functions.h"
#include "tests/kernels/support/backend.h"

namespace voca::kernels::testing {
namespace {

using cpu::Normal;

// As the kernels compute them: with multiply-adds where the instruction set has them.
float exponential(float x) {
  return math_functions().exponential(x);
}
Normal<float> normal(float u) {
  const auto [cdf, pdf] = math_functions().normal(u);
  return {cdf, pdf};
}
Normal<double> normal(double u) {
  return cpu::normal(u);
}

class Exponential : public ::testing::Test {
  void SetUp() override {
    if (HostCpu::unavailable() != nullptr) GTEST_SKIP() << HostCpu::unavailable();
  }
};
class NormalDistribution : public Exponential {};

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Error of `got` in units in the last place of float at `want`.
double ulps(float got, double want) {
  const double magnitude = std::max(std::abs(want), static_cast<double>(std::numeric_limits<float>::min()));
  const double ulp = std::ldexp(1.0, std::ilogb(magnitude) - 23);
  return std::abs(static_cast<double>(got) - want) / ulp;
}

TEST_F(Exponential, IsWithinOneUlpOverTheWholeRange) {
  // Every 97th float from 2⁻³⁰ to overflow, with both signs.
  double worst = 0;
  for (std::uint32_t bits = std::bit_cast<std::uint32_t>(0x1p-30F);
       bits < std::bit_cast<std::uint32_t>(88.7F); bits += 97) {
    const auto x = std::bit_cast<float>(bits);
    worst = std::max({worst, ulps(exponential(x), std::exp(static_cast<double>(x))),
                      ulps(exponential(-x), std::exp(-static_cast<double>(x)))});
  }
  EXPECT_LE(worst, math_functions().multiply_adds ? 1.0 : 1.2);
}

TEST_F(Exponential, UnderflowsThroughTheDenormals) {
  for (float x = -87.0F; x > -110.0F; x -= 0.01F) {
    EXPECT_NEAR(static_cast<double>(exponential(x)), std::exp(static_cast<double>(x)),
                std::max(1.5e-45, 1e-7 * std::exp(static_cast<double>(x))))
        << x;
  }
}

TEST_F(Exponential, KeepsTheSpecialValues) {
  EXPECT_EQ(exponential(0.0F), 1.0F);
  EXPECT_EQ(exponential(-0.0F), 1.0F);
  EXPECT_EQ(exponential(-kInfinity), 0.0F);
  EXPECT_EQ(exponential(-1e30F), 0.0F);
  EXPECT_EQ(exponential(kInfinity), kInfinity);
  EXPECT_EQ(exponential(88.8F), kInfinity);
  EXPECT_TRUE(std::isfinite(exponential(88.72F)));
  EXPECT_TRUE(std::isnan(exponential(kNan)));
  EXPECT_TRUE(std::isnan(exponential(-kNan)));
}

TEST_F(NormalDistribution, FloatAgreesWithTheStandardLibrary) {
  double worst_cdf = 0;
  double worst_tail = 0;
  double worst_pdf = 0;
  for (int i = -12 * 65536; i <= 12 * 65536; ++i) {
    const float u = static_cast<float>(i) / 65536.0F;
    const Normal<float> got = normal(u);
    const Normal<double> want = normal(static_cast<double>(u));
    worst_cdf = std::max(worst_cdf, std::abs(static_cast<double>(got.cdf) - want.cdf));
    const double spread = std::max(1.0, 0.5 * static_cast<double>(u) * static_cast<double>(u));
    if (u < 0)
      worst_tail = std::max(worst_tail, std::abs(static_cast<double>(got.cdf) / want.cdf - 1) / spread);
    worst_pdf = std::max(worst_pdf, std::abs(static_cast<double>(got.pdf) / want.pdf - 1) / spread);
  }
  EXPECT_LE(worst_cdf, math_functions().multiply_adds ? 1.7e-7 : 2e-7);
  EXPECT_LE(worst_tail, 4e-7);
  EXPECT_LE(worst_pdf, 2e-7);
}

TEST_F(NormalDistribution, DoubleIsTheIntegralOfItsDensity) {
  // Simpson's rule with steps of 1/64.
  double integral = normal(-8.0).cdf;
  for (int i = -512; i < 512; ++i) {
    const double u = i / 64.0;
    const double h = 1 / 64.0;
    integral += h / 6 * (normal(u).pdf + 4 * normal(u + h / 2).pdf + normal(u + h).pdf);
    EXPECT_NEAR(normal(u + h).cdf, integral, 2e-11);
  }
}

TEST_F(NormalDistribution, KeepsTheSpecialValues) {
  EXPECT_EQ(normal(kInfinity).cdf, 1.0F);
  EXPECT_EQ(normal(-kInfinity).cdf, 0.0F);
  EXPECT_EQ(normal(kInfinity).pdf, 0.0F);
  EXPECT_TRUE(std::isnan(normal(kNan).cdf));
  EXPECT_TRUE(std::isnan(normal(kNan).pdf));
  EXPECT_TRUE(std::isnan(normal(std::numeric_limits<double>::quiet_NaN()).cdf));
}

}  // namespace
}  // namespace voca::kernels::testing
