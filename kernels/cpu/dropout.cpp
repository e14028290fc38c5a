#include "kernels/cpu/dropout.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/cpu/philox_lanes.h"

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

namespace {

static_assert(std::endian::native == std::endian::little,
              "a Philox word in memory is its two 16-bit halves in order");

// Philox calls of one batch: two 512-bit vectors of 64-bit lanes.
constexpr int kCalls = 16;
constexpr int kElements = kCalls * kDropoutElementsPerCall;

struct Words {
  alignas(64) std::uint32_t word[4][kCalls];
};

// Philox calls first, first + 1, … of philox4x32<7>.
void philox_words(const Dropout& dropout, std::uint64_t first, Words& words) {
  alignas(64) std::uint64_t c[4][kCalls];
  for (int i = 0; i < kCalls; ++i) {
    const std::uint64_t counter = first + static_cast<std::uint64_t>(i);
    c[0][i] = counter;
    c[1][i] = counter >> 32U;
    c[2][i] = dropout.step;
    c[3][i] = dropout.site;
  }
  using Lanes = Vector<std::uint64_t>;
  constexpr int kTogether = 2 * kLanes<std::uint64_t>;
  static_assert(kCalls % kTogether == 0);
  for (int begin = 0; begin < kCalls; begin += kTogether) {
    Lanes x[2][4];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) x[i / 4][i % 4] = load(&c[i % 4][begin + i / 4 * kLanes<std::uint64_t>]);
    philox_lanes<kDropoutRounds>(x, static_cast<std::uint32_t>(dropout.seed),
                                 static_cast<std::uint32_t>(dropout.seed >> 32U));
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) store(&c[i % 4][begin + i / 4 * kLanes<std::uint64_t>], x[i / 4][i % 4]);
  }
#pragma omp simd
  for (int i = 0; i < kCalls; ++i) {
    words.word[0][i] = static_cast<std::uint32_t>(c[0][i]);
    words.word[1][i] = static_cast<std::uint32_t>(c[1][i]);
    words.word[2][i] = static_cast<std::uint32_t>(c[2][i]);
    words.word[3][i] = static_cast<std::uint32_t>(c[3][i]);
  }
}

// Writes the bits of elements [8 · first_call, 8 · first_call + count), with count rounded up to a multiple
// of kElements.
void run_bits(const Dropout& dropout, std::uint64_t first_call, std::int64_t count, std::uint16_t* bits) {
  Words words;
  alignas(64) std::uint32_t in_order[4 * kCalls];
  for (std::int64_t done = 0; done < count; done += kElements) {
    philox_words(dropout, first_call + static_cast<std::uint64_t>(done / kDropoutElementsPerCall), words);
    for (int i = 0; i < kCalls; ++i) {
      for (int w = 0; w < 4; ++w) in_order[4 * i + w] = words.word[w][i];
    }
    std::memcpy(bits + done, in_order, sizeof in_order);
  }
}

// Bits of one 16 × 16 tile whose first decision does not start a Philox call.
void odd_tile_bits(const Dropout& dropout, std::uint64_t first, std::int64_t stride, std::uint16_t* bits) {
  alignas(64) std::uint16_t run[256 + kElements];
  run_bits(dropout, first / 8, 256 + 8, run);
  for (std::int64_t i = 0; i < 16; ++i) {
    for (std::int64_t j = 0; j < 16; ++j) {
      bits[i * stride + j] = run[first % 8 + attention_mask_element(i, j, 16)];
    }
  }
}

// Bits of one aligned 16 × 16 tile. Word 2 (i / 8) + j / 8 of call 4 (i % 8) + (j % 8)/2 holds two neighbours
// of row i, so four calls hold eight decisions of a row.
void tile_bits(const Dropout& dropout, std::uint64_t first_call, std::int64_t stride, std::uint16_t* bits) {
  Words words;
  for (int part = 0; part < 2; ++part) {
    philox_words(dropout, first_call + static_cast<std::uint64_t>(part * kCalls), words);
    for (int call = 0; call < kCalls; call += 4) {
      const std::int64_t row = (part * kCalls + call) / 4;
      for (int word = 0; word < 4; ++word) {
        const std::int64_t half = word / 2;
        const std::int64_t side = word % 2;
        std::memcpy(bits + (row + 8 * half) * stride + 8 * side, &words.word[word][call], 16);
      }
    }
  }
}

}  // namespace

template <typename T>
const std::uint16_t* DropoutRun<T>::bits(std::int64_t first, std::int64_t count) {
  if (!dropout_.enabled()) return bits_;
  const std::uint64_t element = dropout_.first_element + static_cast<std::uint64_t>(first);
  const auto skipped = static_cast<std::int64_t>(element % 8);
  run_bits(dropout_, element / 8, skipped + count, bits_);
  return bits_ + skipped;
}

void attention_dropout_tile(const Dropout& dropout, std::int64_t matrix, std::int64_t row,
                            std::int64_t column, std::int64_t query_length, std::int64_t key_length,
                            std::int64_t stride, std::uint16_t* bits) {
  if (!dropout.enabled()) {
    for (std::int64_t i = 0; i < 16; ++i) std::fill_n(bits + i * stride, 16, std::uint16_t{0});
    return;
  }
  const std::uint64_t first =
      dropout.first_element +
      static_cast<std::uint64_t>(matrix) * attention_mask_size(query_length, key_length) +
      attention_mask_element(row, column, key_length);
  if (first % 8 == 0) {
    tile_bits(dropout, first / 8, stride, bits);
  } else {
    odd_tile_bits(dropout, first, stride, bits);
  }
}

template class DropoutRun<float>;
template class DropoutRun<double>;

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
