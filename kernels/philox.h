#pragma once

#include <cstdint>

#include "kernels/types.h"

// Philox4x32, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC
// 2011). Counter and key determine the number: a mask is recomputed where it is needed, on any device, by any
// thread.

#if defined(__CUDACC__)
#define VOCA_HOST_DEVICE __host__ __device__
#else
#define VOCA_HOST_DEVICE
#endif

namespace voca::kernels {

struct Philox4 {
  std::uint32_t word[4];
};

/// The keys of `kRounds` rounds, which follow from the first: worked out once for many numbers.
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

/// `kRounds` rounds of Philox4x32 of counter (c0, c1, c2, c3) under key (k0, k1). 10 rounds is the published
/// default; 7 is the fewest that passes BigCrush, and what dropout uses.
template <int kRounds>
[[nodiscard]] VOCA_HOST_DEVICE inline Philox4 philox4x32(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2,
                                                         std::uint32_t c3, const PhiloxKeys<kRounds>& keys) {
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53U} * c0;
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57U} * c2;
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
/// One Philox call decides for eight elements, 16 bits each.
inline constexpr int kDropoutElementsPerCall = 8;

/// Which mask: (seed, step, site) name it, and an element's 64-bit index its bit. Forward and backward pass
/// the same.
///
/// Element e is kept when its 16 bits are ≥ threshold. They are half e % 8 (low half of word 0, high half of
/// word 0, low half of word 1, …) of philox4x32<7>(counter = (lo(e/8), hi(e/8), step, site), key = (lo(seed),
/// hi(seed))). With p < 2⁻¹⁷ the threshold is 0 and nothing is dropped.
struct Dropout {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;           ///< counts micro-batches, so accumulated ones differ
  std::uint32_t site = 0;           ///< which dropout of the network
  std::uint32_t threshold = 0;      ///< of 65536; 0 switches dropout off
  std::uint64_t first_element = 0;  ///< index of the array's element 0, so that a rank's slice of a global
                                    ///< batch sees its part of the global mask

  [[nodiscard]] VOCA_HOST_DEVICE bool enabled() const { return threshold > 0; }
  /// 1 / (probability that an element is kept), for the probability the 16-bit threshold really gives.
  [[nodiscard]] VOCA_HOST_DEVICE double scale() const {
    return 65536.0 / static_cast<double>(65536U - threshold);
  }
};

/// The 16-bit threshold for drop probability p in [0, 1).
[[nodiscard]] constexpr std::uint32_t dropout_threshold(double p) {
  // p is not negative, and std::lround is not constexpr.
  const auto threshold =
      static_cast<std::uint32_t>(p * 65536.0 + 0.5);  // NOLINT(bugprone-incorrect-roundings)
  return threshold > 65535U ? 65535U : threshold;
}

[[nodiscard]] VOCA_HOST_DEVICE inline PhiloxKeys<kDropoutRounds> dropout_keys(const Dropout& dropout) {
  return {static_cast<std::uint32_t>(dropout.seed), static_cast<std::uint32_t>(dropout.seed >> 32)};
}

/// The eight decisions of elements [8·block, 8·block + 8). `keys`: dropout_keys(dropout).
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

/// Whether one element is kept: the definition, for tests and odd ends of arrays.
[[nodiscard]] VOCA_HOST_DEVICE inline bool dropout_keeps(const Dropout& dropout, std::uint64_t element) {
  const std::uint64_t index = dropout.first_element + element;
  return dropout_keeps(dropout_bits(dropout, index / 8), static_cast<int>(index % 8), dropout.threshold);
}

/// Index of attention probability (i, j) of one batch-head in its mask. The matrix is cut into 16 × 16 tiles
/// in row-major order, and a tile's 256 decisions are laid out as a warp holds the accumulators of two m16n8
/// products: lane 4·(i % 8) + (j % 8)/2 owns the eight elements {i, i + 8} × {j, j + 1, j + 8, j + 9}, one
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

/// Decisions that one batch-head's matrix (query_length × key_length) takes of the mask: whole tiles.
[[nodiscard]] VOCA_HOST_DEVICE inline std::uint64_t attention_mask_size(std::int64_t query_length,
                                                                        std::int64_t key_length) {
  return static_cast<std::uint64_t>(divide_up(query_length, 16) * divide_up(key_length, 16)) * 256U;
}

}  // namespace voca::kernels
