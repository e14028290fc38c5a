#include "engine/base/random.h"

#include <array>
#include <cmath>
#include <numbers>

#include "engine/base/error.h"
#include "kernels/cpu/philox_lanes.h"

namespace voca::engine {
namespace {

constexpr int kRounds = 10;
using Lanes = kernels::cpu::Vector<std::uint64_t>;
constexpr int kLanes = kernels::cpu::kLanes<std::uint64_t>;
constexpr int kGroups = 2;
/// Numbers that are computed at a time.
constexpr std::size_t kTogether = std::size_t{4} * kGroups * kLanes;

}  // namespace

std::uint32_t RandomStream::next_u32() {
  if (used_ == 4) {
    words_ = kernels::philox4x32<kRounds>(
        draw_++, static_cast<std::uint32_t>(index_), static_cast<std::uint32_t>(index_ >> 32), purpose_,
        static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32));
    used_ = 0;
  }
  return words_.word[used_++];
}

void RandomStream::fill(std::span<std::uint32_t> numbers) {
  for (; !numbers.empty() && (used_ < 4 || numbers.size() < kTogether); numbers = numbers.subspan(1))
    numbers.front() = next_u32();
  for (; numbers.size() >= kTogether; numbers = numbers.subspan(kTogether)) {
    Lanes x[kGroups][4];
    for (Lanes(&counter)[4] : x) {
      std::array<std::uint64_t, kLanes> draws;
      for (std::uint64_t& draw : draws) draw = draw_++;
      counter[0] = kernels::cpu::load(draws.data());
      counter[1] = Lanes{} + (index_ & 0xFFFFFFFFU);
      counter[2] = Lanes{} + (index_ >> 32);
      counter[3] = Lanes{} + std::uint64_t{purpose_};
    }
    kernels::cpu::philox_lanes<kRounds>(x, static_cast<std::uint32_t>(seed_),
                                        static_cast<std::uint32_t>(seed_ >> 32));
    std::uint32_t* out = numbers.data();
    for (const Lanes(&counter)[4] : x) {
      std::array<std::array<std::uint64_t, kLanes>, 4> words;
      for (std::size_t w = 0; w < 4; ++w) kernels::cpu::store(words[w].data(), counter[w]);
      for (std::size_t lane = 0; lane < kLanes; ++lane)
        for (std::size_t w = 0; w < 4; ++w) *out++ = static_cast<std::uint32_t>(words[w][lane]);
    }
  }
  for (std::uint32_t& number : numbers) number = next_u32();
}

std::uint64_t RandomStream::next_u64() {
  const std::uint64_t low = next_u32();
  return (std::uint64_t{next_u32()} << 32) | low;
}

double RandomStream::uniform() {
  return static_cast<double>(next_u64() >> 11) * 0x1.0p-53;
}

std::int64_t RandomStream::below(std::int64_t n) {
  VOCA_CHECK(n >= 1);
  const auto range = static_cast<std::uint64_t>(n);
  const std::uint64_t limit = ~std::uint64_t{0} - (~std::uint64_t{0} % range + 1) % range;
  for (;;) {
    const std::uint64_t value = next_u64();
    if (value <= limit) return static_cast<std::int64_t>(value % range);
  }
}

double RandomStream::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

}  // namespace voca::engine
