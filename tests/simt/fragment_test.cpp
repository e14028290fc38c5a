#include "tests/simt/fragments.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "tests/kernels/support/buffer.h"

// Tests each wrapper of kernels/cuda/tensor_core.h against its definition. The maps from matrix element to
// lane and register follow the PTX ISA, independently of the executor.

namespace voca::simt::testing {
namespace {

using kernels::testing::Access;
using Backend = kernels::testing::TestedBackend;
template <typename T>
using Buffer = kernels::testing::Buffer<Backend, T>;

template <typename T>
Buffer<T> input(const std::vector<T>& values) {
  return Buffer<T>(values, Access::kRead);
}
template <typename T>
Buffer<T> output(std::size_t n) {
  return Buffer<T>(std::vector<T>(n), Access::kWrite);
}

/// Location of element (row, column) of a fragment.
struct Place {
  std::size_t lane;
  std::size_t index;  ///< index of the register, or of the float for C
  unsigned shift;     ///< bit offset of the 16-bit half
};
Place place_in_a(std::size_t row, std::size_t column) {
  return {row % 8 * 4 + column % 8 / 2, row / 8 + column / 8 * 2, static_cast<unsigned>(column % 2 * 16)};
}
Place place_in_b(std::size_t row, std::size_t column) {
  return {column * 4 + row % 8 / 2, row / 8, static_cast<unsigned>(row % 2 * 16)};
}
Place place_in_c(std::size_t row, std::size_t column) {
  return {row % 8 * 4 + column / 2, row / 8 * 2 + column % 2, 0};
}

std::uint32_t bits_of(__nv_bfloat16 x) {
  return __bfloat16_as_ushort(x);
}
std::uint32_t bits_of(__half x) {
  return __half_as_ushort(x);
}
template <typename T>
T rounded(float x) {
  if constexpr (std::is_same_v<T, __half>) return __float2half(x);
  if constexpr (!std::is_same_v<T, __half>) return __float2bfloat16(x);
}

/// Skips the tests if the backend has no device.
class Fragments : public ::testing::Test {
 protected:
  void SetUp() override {
    if (Backend::unavailable() != nullptr) GTEST_SKIP() << Backend::unavailable();
  }
  std::mt19937 random_{7};
  float number() { return std::uniform_real_distribution<float>(-2, 2)(random_); }
};

template <typename T>
class MmaFragments : public Fragments {};
using ElementTypes = ::testing::Types<__nv_bfloat16, __half>;
TYPED_TEST_SUITE(MmaFragments, ElementTypes);

TYPED_TEST(MmaFragments, ProductOfMatricesLaidOutAsThePtxIsaSays) {
  std::vector<std::uint32_t> a(32 * 4, 0);
  std::vector<std::uint32_t> b(32 * 2, 0);
  std::vector<float> c(32 * 4, 0);
  std::vector<double> want(16 * 8);
  double a_values[16][16];
  double b_values[16][8];
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t k = 0; k < 16; ++k) {
      const auto value = rounded<TypeParam>(this->number());
      const Place place = place_in_a(i, k);
      a[place.lane * 4 + place.index] |= bits_of(value) << place.shift;
      a_values[i][k] = static_cast<double>(static_cast<float>(value));
    }
    for (std::size_t j = 0; j < 8; ++j) {
      const auto value = rounded<TypeParam>(this->number());
      const Place place = place_in_b(i, j);
      b[place.lane * 2 + place.index] |= bits_of(value) << place.shift;
      b_values[i][j] = static_cast<double>(static_cast<float>(value));
      const Place sum = place_in_c(i, j);
      c[sum.lane * 4 + sum.index] = this->number();
    }
  }
  auto a_in = input(a);
  auto b_in = input(b);
  auto c_in = input(c);
  auto d_out = output<float>(c.size());
  run_mma<TypeParam>(a_in.data(), b_in.data(), c_in.data(), d_out.data());
  const std::vector<double> d = d_out.values();
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 8; ++j) {
      const Place place = place_in_c(i, j);
      double sum = static_cast<double>(c[place.lane * 4 + place.index]);
      for (std::size_t k = 0; k < 16; ++k) sum += a_values[i][k] * b_values[k][j];
      // Sixteen products of up to 4, summed in fp32 in any order; tensor cores may truncate instead of round.
      EXPECT_NEAR(d[place.lane * 4 + place.index], sum, 16 * 64 * 0x1p-23) << i << ", " << j;
    }
  }
}

TEST_F(Fragments, LdmatrixGivesEachLaneTwoNeighboursOfARow) {
  std::vector<std::uint16_t> rows(4 * 64);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::uint16_t>(3 * i + 1);
  auto in = input(rows);
  auto straight = output<std::uint32_t>(32 * 4);
  auto transposed = output<std::uint32_t>(32 * 4);
  run_ldmatrix(false, in.data(), straight.data());
  run_ldmatrix(true, in.data(), transposed.data());
  for (std::size_t matrix = 0; matrix < 4; ++matrix) {
    for (std::size_t row = 0; row < 8; ++row) {
      for (std::size_t column = 0; column < 8; ++column) {
        const std::uint32_t value = rows[matrix * 64 + row * 8 + column];
        const auto half = [matrix](const std::vector<std::uint32_t>& registers, std::size_t i,
                                   std::size_t j) {
          return registers[(i * 4 + j / 2) * 4 + matrix] >> (16 * (j % 2)) & 0xFFFFU;
        };
        EXPECT_EQ(half(straight.raw(), row, column), value);
        EXPECT_EQ(half(transposed.raw(), column, row), value);
      }
    }
  }
}

TEST_F(Fragments, MovmatrixTransposes) {
  std::vector<std::uint32_t> pairs(32);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto number = static_cast<std::uint32_t>(2 * i);
    pairs[i] = (5 * number + 3) | (5 * (number + 1) + 3) << 16U;
  }
  auto in = input(pairs);
  auto out = output<std::uint32_t>(pairs.size());
  run_movmatrix(in.data(), out.data());
  const std::vector<std::uint32_t> got = out.raw();
  for (std::size_t row = 0; row < 8; ++row) {
    for (std::size_t column = 0; column < 8; ++column) {
      const std::uint32_t value = got[row * 4 + column / 2] >> (16 * (column % 2)) & 0xFFFFU;
      EXPECT_EQ(value, 5 * (column * 8 + row) + 3) << row << ", " << column;
    }
  }
}

TYPED_TEST(MmaFragments, PackRoundsToNearestWithTheFirstInTheLowHalf) {
  std::vector<float> values(64);
  for (float& value : values) value = this->number();
  values[3] = 1 + 0x3p-9F;   // rounding tie in bf16
  values[4] = 1 + 0x3p-12F;  // rounding tie in fp16
  auto in = input(values);
  auto pairs = output<std::uint32_t>(32);
  run_pack<TypeParam>(in.data(), pairs.data());
  const std::vector<std::uint32_t> got = pairs.raw();
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(got[i] & 0xFFFFU, bits_of(rounded<TypeParam>(values[2 * i])));
    EXPECT_EQ(got[i] >> 16U, bits_of(rounded<TypeParam>(values[2 * i + 1])));
  }
}

TEST_F(Fragments, CpAsyncCopiesOrFillsWithZeros) {
  std::vector<std::uint32_t> values(32 * 4);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint32_t>(i * 2654435761U + 1);
  auto in = input(values);
  auto out = output<std::uint32_t>(values.size());
  run_cp_async(in.data(), out.data());
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(out.raw()[i], i / 4 % 2 == 0 ? values[i] : 0U) << i;
}

}  // namespace
}  // namespace voca::simt::testing
