#include "engine/base/random.h"

#include <cmath>
#include <numbers>

#include "engine/base/error.h"

namespace voca::engine {

std::uint32_t RandomStream::next_u32() {
  if (used_ == 4) {
    words_ = kernels::philox4x32<10>(
        draw_++, static_cast<std::uint32_t>(index_), static_cast<std::uint32_t>(index_ >> 32), purpose_,
        static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32));
    used_ = 0;
  }
  return words_.word[used_++];
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
