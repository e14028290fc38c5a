#pragma once

#include <cstdint>

#include "kernels/types.h"

// Philox4x32, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC
// 2011). Counter and key determine the number, so any thread on any device can recompute a mask.

namespace voca::kernels {

inline constexpr std::uint32_t kPhiloxMultiplier0 = 0xD2511F53U;
inline constexpr std::uint32_t kPhiloxMultiplier1 = 0xCD9E8D57U;

struct Philox4 {
  std::uint32_t word[4];
};

/// Round keys of `kRounds` rounds, derived from the first key; computed once for many numbers.
template <int kRounds>
struct PhiloxKeys {
  VOCA_HOST_DEVICE PhiloxKeys(std::uint32_t k0, std::uint32_t k1) {
    for (auto& round : key) {
      round[0] = k0;
      round[1] = k1;
      k0 += 0x9E3779B9U;
      k1 += 0xBB67AE85U;
    }
  }

  std::uint32_t key[kRounds][2];
};

/// Philox4x32 with `kRounds` rounds of counter (c0, c1, c2, c3) under key (k0, k1). The published default is
/// 10 rounds; 7, used by dropout, is the minimum that passes BigCrush.
template <int kRounds>
[[nodiscard]] VOCA_HOST_DEVICE inline Philox4 philox4x32(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2,
                                                         std::uint32_t c3, const PhiloxKeys<kRounds>& keys) {
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t product0 = std::uint64_t{kPhiloxMultiplier0} * c0;
    const std::uint64_t product1 = std::uint64_t{kPhiloxMultiplier1} * c2;
    c0 = static_cast<std::uint32_t>(product1 >> 32) ^ c1 ^ keys.key[round][0];
    c1 = static_cast<std::uint32_t>(product1);
    c2 = static_cast<std::uint32_t>(product0 >> 32) ^ c3 ^ keys.key[round][1];
    c3 = static_cast<std::uint32_t>(product0);
  }
  return {{c0, c1, c2, c3}};
}
template <int kRounds>
[[nodiscard]] VOCA_HOST_DEVICE inline Philox4 philox4x32(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2,
                                                         std::uint32_t c3, std::uint32_t k0,
                                                         std::uint32_t k1) {
  return philox4x32<kRounds>(c0, c1, c2, c3, PhiloxKeys<kRounds>(k0, k1));
}

inline constexpr int kDropoutRounds = 7;
/// Elements whose dropout decisions come from one Philox call, 16 bits each.
inline constexpr int kDropoutElementsPerCall = 8;

/// Identifies a dropout mask by (seed, step, site). Forward and backward take the same value.
///
/// Element e is kept if its 16 bits are ≥ threshold. They are half e % 8 (low half of word 0, high half of
/// word 0, low half of word 1, …) of philox4x32<7>(counter = (lo(e/8), hi(e/8), step, site), key = (lo(seed),
/// hi(seed))). If p < 2⁻¹⁷, the threshold is 0 and no element is dropped.
struct Dropout {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;           ///< micro-batch counter: each accumulated micro-batch has its own mask
  std::uint32_t site = 0;           ///< index of the dropout layer in the network
  std::uint32_t threshold = 0;      ///< drop probability in units of 1/65536; 0 switches dropout off
  std::uint64_t first_element = 0;  ///< mask index of element 0: offset of this rank's slice of the batch

  [[nodiscard]] VOCA_HOST_DEVICE bool enabled() const { return threshold > 0; }
  /// 1 / (keep probability), with the probability as quantised by the 16-bit threshold.
  [[nodiscard]] VOCA_HOST_DEVICE double scale() const {
    return 65536.0 / static_cast<double>(65536U - threshold);
  }
};

/// 16-bit threshold for drop probability p in [0, 1).
[[nodiscard]] constexpr std::uint32_t dropout_threshold(double p) {
  // Rounds by hand: p is not negative, and std::lround is not constexpr.
  const auto threshold =
      static_cast<std::uint32_t>(p * 65536.0 + 0.5);  // NOLINT(bugprone-incorrect-roundings)
  return threshold > 65535U ? 65535U : threshold;
}

[[nodiscard]] VOCA_HOST_DEVICE inline PhiloxKeys<kDropoutRounds> dropout_keys(const Dropout& dropout) {
  return {static_cast<std::uint32_t>(dropout.seed), static_cast<std::uint32_t>(dropout.seed >> 32)};
}

/// Decision bits of elements [8·block, 8·block + 8). `keys` is dropout_keys(dropout).
[[nodiscard]] VOCA_HOST_DEVICE inline Philox4 dropout_bits(const Dropout& dropout, std::uint64_t block,
                                                           const PhiloxKeys<kDropoutRounds>& keys) {
  return philox4x32<kDropoutRounds>(static_cast<std::uint32_t>(block),
                                    static_cast<std::uint32_t>(block >> 32), dropout.step, dropout.site,
                                    keys);
}
[[nodiscard]] VOCA_HOST_DEVICE inline Philox4 dropout_bits(const Dropout& dropout, std::uint64_t block) {
  return dropout_bits(dropout, block, dropout_keys(dropout));
}

[[nodiscard]] VOCA_HOST_DEVICE inline bool dropout_keeps(const Philox4& bits, int lane,
                                                         std::uint32_t threshold) {
  return ((bits.word[lane / 2] >> (16 * (lane % 2))) & 0xFFFFU) >= threshold;
}

/// Whether one element is kept. Reference form, used by tests and for unaligned elements.
[[nodiscard]] VOCA_HOST_DEVICE inline bool dropout_keeps(const Dropout& dropout, std::uint64_t element) {
  const std::uint64_t index = dropout.first_element + element;
  return dropout_keeps(dropout_bits(dropout, index / 8), static_cast<int>(index % 8), dropout.threshold);
}

/// Mask index of attention probability (i, j) within one (batch, head). The matrix is cut into 16 × 16 tiles
/// in row-major order. The 256 decisions of a tile follow the layout of the accumulators of two m16n8 MMAs in
/// a warp: lane 4·(i % 8) + (j % 8)/2 owns the eight elements {i, i + 8} × {j, j + 1, j + 8, j + 9}, one
/// Philox call.
[[nodiscard]] VOCA_HOST_DEVICE inline std::uint64_t attention_mask_element(std::int64_t i, std::int64_t j,
                                                                           std::int64_t key_length) {
  const std::int64_t tiles = divide_up(key_length, 16);
  const std::int64_t tile = (i / 16) * tiles + j / 16;
  const std::int64_t row = i % 16;
  const std::int64_t column = j % 16;
  const std::int64_t lane = 4 * (row % 8) + (column % 8) / 2;
  const std::int64_t slot = (row / 8) * 4 + (column / 8) * 2 + column % 2;
  return static_cast<std::uint64_t>(tile * 256 + lane * 8 + slot);
}

/// Number of mask decisions per (batch, head) matrix (query_length × key_length), rounded up to whole tiles.
[[nodiscard]] VOCA_HOST_DEVICE inline std::uint64_t attention_mask_size(std::int64_t query_length,
                                                                        std::int64_t key_length) {
  return static_cast<std::uint64_t>(divide_up(query_length, 16) * divide_up(key_length, 16)) * 256U;
}

}  // namespace voca::kernels
