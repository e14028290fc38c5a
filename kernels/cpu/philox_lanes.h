#pragma once

#include "kernels/cpu/vector.h"
#include "kernels/philox.h"

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

/// philox4x32<kRounds> of the counters (x[g][0], x[g][1], x[g][2], x[g][3]) of every lane and group g, in
/// place, under the key (k0, k1). The 64-bit lanes hold 32-bit words whose upper halves are garbage between
/// rounds and at the end, so that multiplications need no shuffle. Two groups hide the latency of the
/// multiplier.
template <int kRounds, int kGroups>
inline void philox_lanes(Vector<std::uint64_t> (&x)[kGroups][4], std::uint32_t k0, std::uint32_t k1) {
  const PhiloxKeys<kRounds> keys(k0, k1);
  for (const auto& key : keys.key) {
#pragma GCC unroll 2
    for (Vector<std::uint64_t>(&counter)[4] : x) {
      const Vector<std::uint64_t> product0 = multiply_low_halves(counter[0], kPhiloxMultiplier0);
      const Vector<std::uint64_t> product1 = multiply_low_halves(counter[2], kPhiloxMultiplier1);
      counter[0] = (product1 >> 32) ^ counter[1] ^ std::uint64_t{key[0]};
      counter[1] = product1;
      counter[2] = (product0 >> 32) ^ counter[3] ^ std::uint64_t{key[1]};
      counter[3] = product0;
    }
  }
}

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
