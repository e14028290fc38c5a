#pragma once

#include <cstdint>

// Each function runs one operation of kernels/cuda/tensor_core.h in one warp. The registers of the 32 lanes
// are passed in and out, so that tests can check the fragment layout of each wrapper separately.

namespace voca::simt::testing {

/// D = A · B + C with fragments a[lane][4], b[lane][2], c[lane][4] and d[lane][4].
template <typename T>
void run_mma(const std::uint32_t* a, const std::uint32_t* b, const float* c, float* d);

/// rows: four consecutive 8 × 8 matrices of 16-bit elements, row-major. registers[lane][4] receives the
/// fragments.
void run_ldmatrix(bool transposed, const std::uint16_t* rows, std::uint32_t* registers);

/// Transposes an 8 × 8 matrix of 16-bit elements, one pair per lane.
void run_movmatrix(const std::uint32_t* in, std::uint32_t* out);

/// pairs[i] = pack(values[2 i], values[2 i + 1]), 32 pairs.
template <typename T>
void run_pack(const float* values, std::uint32_t* pairs);

/// Copies in to out with 32 16-byte copies; copies with an odd index write zeros.
void run_cp_async(const std::uint32_t* in, std::uint32_t* out);

}  // namespace voca::simt::testing
