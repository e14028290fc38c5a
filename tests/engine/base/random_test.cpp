#include "engine/base/random.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>

namespace voca::engine {
namespace {

// Known answers of the reference implementation (Random123, kat_vectors, philox 4x32, 7 and 10 rounds).
TEST(Philox, GivesThePublishedKnownAnswers) {
  const auto zero10 = kernels::philox4x32<10>(0, 0, 0, 0, 0, 0);
  EXPECT_EQ(zero10.word[0], 0x6627e8d5U);
  EXPECT_EQ(zero10.word[1], 0xe169c58dU);
  EXPECT_EQ(zero10.word[2], 0xbc57ac4cU);
  EXPECT_EQ(zero10.word[3], 0x9b00dbd8U);
  const std::uint32_t f = 0xffffffffU;
  const auto ones10 = kernels::philox4x32<10>(f, f, f, f, f, f);
  EXPECT_EQ(ones10.word[0], 0x408f276dU);
  EXPECT_EQ(ones10.word[1], 0x41c83b0eU);
  EXPECT_EQ(ones10.word[2], 0xa20bc7c6U);
  EXPECT_EQ(ones10.word[3], 0x6d5451fdU);
  const auto zero7 = kernels::philox4x32<7>(0, 0, 0, 0, 0, 0);
  EXPECT_EQ(zero7.word[0], 0x5f6fb709U);
  EXPECT_EQ(zero7.word[1], 0x0d893f64U);
  EXPECT_EQ(zero7.word[2], 0x4f121f81U);
  EXPECT_EQ(zero7.word[3], 0x4f730a48U);
}

TEST(RandomStream, DependsOnSeedPurposeAndIndexAlone) {
  RandomStream a(7, RandomPurpose::kSplit, 3);
  RandomStream b(7, RandomPurpose::kSplit, 3);
  RandomStream other(7, RandomPurpose::kSplit, 4);
  int equal_to_other = 0;
  for (int i = 0; i < 100; ++i) {
    const std::uint32_t value = a.next_u32();
    EXPECT_EQ(value, b.next_u32());
    equal_to_other += value == other.next_u32() ? 1 : 0;
  }
  EXPECT_LE(equal_to_other, 1);
}

TEST(RandomStream, FillGivesTheNumbersOneByOne) {
  const std::uint64_t index = (std::uint64_t{0x89ABCDEF} << 32) | 0x12345678U;
  RandomStream filled(0xFEDCBA9876543210U, RandomPurpose::kSynthetic, index);
  RandomStream single(0xFEDCBA9876543210U, RandomPurpose::kSynthetic, index);
  for (const std::size_t count : {1U, 0U, 15U, 16U, 17U, 64U, 3U, 100U, 1000U, 512U, 5U}) {
    std::vector<std::uint32_t> numbers(count);
    filled.fill(numbers);
    for (std::size_t i = 0; i < count; ++i) ASSERT_EQ(numbers[i], single.next_u32()) << count << " " << i;
  }
}

TEST(RandomStream, BelowIsUniform) {
  RandomStream stream(1, RandomPurpose::kPermutation, 0);
  std::array<int, 7> counts{};
  for (int i = 0; i < 70000; ++i) ++counts.at(static_cast<std::size_t>(stream.below(7)));
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);  // 5 standard deviations
}

TEST(RandomStream, NormalHasMeanZeroAndVarianceOne) {
  RandomStream stream(2, RandomPurpose::kSynthetic, 0);
  double sum = 0;
  double squares = 0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 0.016);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.023);
}

TEST(Dropout, DropsWithTheProbabilityItScalesFor) {
  for (const double p : {0.1, 0.5, 0.9}) {
    const kernels::Dropout dropout{
        .seed = 5, .step = 1, .site = 2, .threshold = kernels::dropout_threshold(p)};
    int kept = 0;
    constexpr int kElements = 200000;
    for (int e = 0; e < kElements; ++e) kept += dropout_keeps(dropout, static_cast<std::uint64_t>(e)) ? 1 : 0;
    EXPECT_NEAR(kept * dropout.scale() / kElements, 1.0, 5 * std::sqrt(p / (1 - p) / kElements));
  }
}

TEST(Dropout, AttentionMaskGivesEveryElementItsOwnDecision) {
  constexpr std::int64_t kQueries = 37;
  constexpr std::int64_t kKeys = 53;
  std::vector<bool> seen(kernels::attention_mask_size(kQueries, kKeys));
  for (std::int64_t i = 0; i < kQueries; ++i) {
    for (std::int64_t j = 0; j < kKeys; ++j) {
      const std::uint64_t element = kernels::attention_mask_element(i, j, kKeys);
      ASSERT_LT(element, seen.size());
      EXPECT_FALSE(seen[element]);
      seen[element] = true;
    }
  }
}

}  // namespace
}  // namespace voca::engine
