#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <span>

#include "kernels/philox.h"

namespace voca::engine {

/// Purpose of a random stream; streams of different purposes share no numbers. The values are part of the
/// contract: changing one changes every run.
enum class RandomPurpose : std::uint32_t {
  kInitialisation = 1,
  kSplit = 3,
  kPermutation = 4,
  kAugmentation = 5,
  kSynthetic = 6,
};

/// Random numbers that depend only on (seed, purpose, index, number of earlier draws): Philox4x32-10 with key
/// = seed and counter = (draw, index, purpose). Cheap to construct: one per sample, epoch or parameter.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, RandomPurpose purpose, std::uint64_t index)
      : seed_(seed), purpose_(static_cast<std::uint32_t>(purpose)), index_(index) {}

  [[nodiscard]] std::uint32_t next_u32();
  /// The numbers that as many calls of next_u32() would give.
  void fill(std::span<std::uint32_t> numbers);
  /// Uniform in [0, 1), 53 bits.
  [[nodiscard]] double uniform();
  /// Uniform in {0 … n − 1} without bias (rejection). n ≥ 1.
  [[nodiscard]] std::int64_t below(std::int64_t n);
  /// Shuffles a sequence (Fisher–Yates).
  template <std::random_access_iterator Iterator>
  void shuffle(Iterator begin, Iterator end) {
    for (auto i = end - begin; i > 1; --i) std::iter_swap(begin + (i - 1), begin + below(i));
  }
  /// Standard normal (Box–Muller; one number per two uniforms, the second is discarded).
  [[nodiscard]] double normal();

 private:
  [[nodiscard]] std::uint64_t next_u64();

  std::uint64_t seed_;
  std::uint32_t purpose_;
  std::uint64_t index_;
  std::uint32_t draw_ = 0;
  int used_ = 4;
  kernels::Philox4 words_{};
};

}  // namespace voca::engine
