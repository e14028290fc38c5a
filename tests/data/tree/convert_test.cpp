#include "data/tree/convert.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "engine/base/random.h"
#include "kernels/cpu/half.h"

namespace voca::data {
namespace {

using engine::DType;

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

/// The nearest float16 by its definition: of the two neighbours the nearer, of equals the even one.
std::uint16_t nearest_half(double value) {
  std::uint16_t best = 0;
  double best_distance = std::numeric_limits<double>::infinity();
  for (std::uint32_t bits = 0; bits <= 0x7C00U; ++bits) {
    // Infinity stands for 65536, the next number there would be.
    const double candidate =
        bits == 0x7C00U ? 65536.0
                        : static_cast<double>(kernels::cpu::half_to_float(static_cast<std::uint16_t>(bits)));
    const double distance = std::abs(std::abs(value) - candidate);
    if (distance < best_distance || (distance == best_distance && bits % 2 == 0)) {
      best = static_cast<std::uint16_t>(bits);
      best_distance = distance;
    }
  }
  return static_cast<std::uint16_t>(best | (std::signbit(value) ? 0x8000U : 0U));
}

TEST(Convert, EveryHalfSurvivesTheWayToFloatAndBack) {
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    if ((bits & 0x7C00U) == 0x7C00U && (bits & 0x3FFU) != 0) continue;  // NaN
    const float value = kernels::cpu::half_to_float(static_cast<std::uint16_t>(bits));
    ASSERT_EQ(kernels::cpu::float_to_half(value), bits);
  }
}

TEST(Convert, FloatsAndDoublesBecomeTheNearestHalf) {
  engine::RandomStream random(1, engine::RandomPurpose::kSynthetic, 0);
  std::vector<double> values{0.0,       -0.0,          65504.0,       65519.9, 0x1p-24,     0x1p-25,
                             0x1.8p-25, 1.0 + 0x1p-11, 1.0 + 0x3p-11, 0x1p-14, 0x1.ffcp-15, 0x1.ffep-15};
  // Ties that a first rounding to float would move: a hair beside the middle of two halves.
  values.push_back(1.0 + 0x1p-11 + 0x1p-40);
  values.push_back(1.0 + 0x3p-11 - 0x1p-40);
  for (int i = 0; i < 60; ++i) values.push_back(random.normal() * std::exp2(random.uniform() * 30.0 - 22.0));
  std::vector<std::uint16_t> halves(values.size());
  const NarrowResult result =
      narrow(DType::kF64, bytes_of(values).data(), static_cast<std::int64_t>(values.size()), DType::kF16,
             reinterpret_cast<std::byte*>(halves.data()));
  EXPECT_EQ(result.not_finite, -1);
  EXPECT_EQ(result.overflow, -1);
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(halves[i], nearest_half(values[i])) << std::hexfloat << values[i];

  const std::vector<float> floats(values.begin(), values.end());
  std::vector<std::uint16_t> from_floats(values.size());
  static_cast<void>(narrow(DType::kF32, bytes_of(floats).data(), static_cast<std::int64_t>(floats.size()),
                           DType::kF16, reinterpret_cast<std::byte*>(from_floats.data())));
  for (std::size_t i = 0; i < floats.size(); ++i) {
    EXPECT_EQ(from_floats[i], nearest_half(static_cast<double>(floats[i]))) << std::hexfloat << floats[i];
    EXPECT_EQ(from_floats[i], kernels::cpu::float_to_half(floats[i]));
  }
}

TEST(Convert, WhatDoesNotFitIsFound) {
  std::vector<double> values(40, 1.0);
  std::vector<std::byte> out(40 * 4);
  const auto run = [&](DType to) { return narrow(DType::kF64, bytes_of(values).data(), 40, to, out.data()); };
  values[33] = 70000.0;
  EXPECT_EQ(run(DType::kF16).overflow, 33);
  EXPECT_EQ(run(DType::kF32).overflow, -1);
  values[21] = -1e300;
  EXPECT_EQ(run(DType::kF32).overflow, 21);
  values[35] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(run(DType::kF32).not_finite, 35);
  values[7] = -std::numeric_limits<double>::infinity();
  EXPECT_EQ(run(DType::kF16).not_finite, 7);
}

template <typename T>
void expect_widened_in_place(DType from, const std::vector<std::byte>& raw,
                             const std::vector<double>& expected) {
  for (const std::size_t count :
       {std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{19}, expected.size()}) {
    std::vector<T> out(count);
    const std::size_t bytes = count * engine::size_of(from);
    std::byte* const tail = reinterpret_cast<std::byte*>(out.data() + count) - bytes;
    std::memcpy(tail, raw.data(), bytes);
    widen(from, tail, static_cast<std::int64_t>(count), engine::kDTypeOf<T>, out.data());
    for (std::size_t i = 0; i < count; ++i)
      ASSERT_EQ(static_cast<double>(out[i]), expected[i]) << i << " of " << count;
  }
}

TEST(Convert, NumbersAreWidenedInThePlaceTheyWereReadInto) {
  std::vector<double> expected;
  for (int i = 0; i < 67; ++i) expected.push_back(static_cast<double>(i - 30) / 16.0);
  for (const DType from : {DType::kF16, DType::kF32}) {
    std::vector<std::byte> raw(expected.size() * engine::size_of(from));
    static_cast<void>(narrow(DType::kF64, bytes_of(expected).data(), 67, from, raw.data()));
    expect_widened_in_place<float>(from, raw, expected);
    expect_widened_in_place<double>(from, raw, expected);
  }
}

}  // namespace
}  // namespace voca::data
