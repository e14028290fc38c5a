#pragma once

#include <cstdint>

// One warp doing one tensor-core operation on registers handed in and out, 32 lanes one after another: so
// that a test can check each wrapper's fragment layout on its own.

namespace voca::simt::testing {

/// d[lane][4] = c[lane][4] + the product of a[lane][4] and b[lane][2].
template <typename T>
void run_mma(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d);

/// rows: four 8 × 8 matrices of 16-bit elements, row-major, one after another. registers[lane][4].
void run_ldmatrix(bool transposed, const std::uint16_t* rows, std::uint32_t* registers);

/// An 8 × 8 matrix of 16-bit elements, a pair a lane, and its transpose.
void run_movmatrix(const std::uint32_t* in, std::uint32_t* out);

/// pairs[i] = pack(values[2 i], values[2 i + 1]), 32 of them.
template <typename T>
void run_pack(const float* values, std::uint32_t* pairs);

/// out = in by 16-byte copies, those with an odd index as zeros; 32 copies.
void run_cp_async(const std::uint32_t* in, std::uint32_t* out);

}  // namespace voca::simt::testing
