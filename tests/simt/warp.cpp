#include <cstring>

#include "tests/simt/block.h"
#include "tests/simt/race.h"

namespace voca::simt::host {

namespace {

void nothing(void* const (&/*lanes*/)[kWarp], unsigned /*mask*/) {}

void expect_full_warp(const char* what, unsigned mask) {
  if (mask != kFullWarp) block().fail(std::string(what) + " without all 32 lanes");
}

struct MmaArgument {
  float (*c)[4];
  const std::uint32_t (*a)[4];
  std::uint32_t b[2];
};

float bf16_value(std::uint32_t bits) {
  return __uint_as_float(bits << 16U);
}
float half_value(std::uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

// kernels/cuda/tensor_core.h describes the fragment layout. Sums in double, because the order of additions on
// the device is not documented.
template <float (*kValue)(std::uint32_t)>
void mma_lanes(void* const (&lanes)[kWarp], unsigned mask) {
  expect_full_warp("mma", mask);
  double a[16][16];
  double b[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto* argument = static_cast<const MmaArgument*>(lanes[lane]);
    const int group = lane / 4;
    const int pair = 2 * (lane % 4);
    for (int half = 0; half < 2; ++half) {
      const auto value = [half](std::uint32_t r) {
        return static_cast<double>(kValue(half == 0 ? r & 0xFFFFU : r >> 16U));
      };
      for (int r = 0; r < 4; ++r)
        a[group + 8 * (r % 2)][pair + 8 * (r / 2) + half] = value((*argument->a)[r]);
      for (int r = 0; r < 2; ++r) b[pair + 8 * r + half][group] = value(argument->b[r]);
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto* argument = static_cast<const MmaArgument*>(lanes[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2);
      const int column = 2 * (lane % 4) + i % 2;
      double sum = (*argument->c)[i];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      (*argument->c)[i] = static_cast<float>(sum);
    }
  }
}

struct LdmatrixArgument {
  std::uint16_t row[8];
  std::uint32_t r[4];
};

template <bool kTransposed>
void ldmatrix_lanes(void* const (&lanes)[kWarp], unsigned mask) {
  expect_full_warp("ldmatrix", mask);
  for (int lane = 0; lane < kWarp; ++lane) {
    auto* mine = static_cast<LdmatrixArgument*>(lanes[lane]);
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto element = [&](int row, int column) {
        return std::uint32_t{static_cast<const LdmatrixArgument*>(lanes[8 * matrix + row])->row[column]};
      };
      const int row = lane / 4;
      const int column = 2 * (lane % 4);
      mine->r[matrix] = kTransposed ? element(column, row) | element(column + 1, row) << 16U
                                    : element(row, column) | element(row, column + 1) << 16U;
    }
  }
}

/// Replaces the pair of each lane with its pair of the transpose.
void transposed_8x8_lanes(void* const (&lanes)[kWarp], unsigned mask) {
  expect_full_warp("movmatrix", mask);
  std::uint32_t matrix[8][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const std::uint32_t pair = *static_cast<const std::uint32_t*>(lanes[lane]);
    matrix[lane / 4][2 * (lane % 4)] = pair & 0xFFFFU;
    matrix[lane / 4][2 * (lane % 4) + 1] = pair >> 16U;
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    const int column = 2 * (lane % 4);
    *static_cast<std::uint32_t*>(lanes[lane]) = matrix[column][lane / 4] | matrix[column + 1][lane / 4]
                                                                               << 16U;
  }
}

}  // namespace

int lane() {
  return block().current().number % kWarp;
}

void barrier(const char* what, Site site) {
  block().barrier(what, site);
}

void warp_collective(unsigned mask, WarpFunction f, void* argument, const char* what, Site site) {
  block().warp_collective(mask, f, argument, what, site);
}

// The only warp operation that orders memory; CUDA guarantees this for no other.
void warp_barrier(unsigned mask, Site site) {
  const int warp = block().current().number / kWarp;
  block().warp_collective(mask, nothing, nullptr, "__syncwarp", site);
  race_detector().warp_barrier(warp);
}

void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1, Site site) {
  MmaArgument argument{&c, &a, {b0, b1}};
  block().warp_collective(kFullWarp, mma_lanes<bf16_value>, &argument, "mma.m16n8k16", site);
}

void mma_half(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1, Site site) {
  MmaArgument argument{&c, &a, {b0, b1}};
  block().warp_collective(kFullWarp, mma_lanes<half_value>, &argument, "mma.m16n8k16", site);
}

void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, bool transposed, Site site) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0)
    block().fail("ldmatrix at " + text(site) + ": the row's address is not a multiple of 16");
  if (!block().shared().contains(row))
    block().fail("ldmatrix at " + text(site) + ": the row is not in shared memory");
  LdmatrixArgument argument{};
  race_detector().access(row, sizeof argument.row, AccessKind::kRead, {nullptr, site});
  std::memcpy(argument.row, row, sizeof argument.row);
  block().warp_collective(kFullWarp, transposed ? ldmatrix_lanes<true> : ldmatrix_lanes<false>, &argument,
                          "ldmatrix", site);
  std::memcpy(r, argument.r, sizeof argument.r);
}

std::uint32_t transposed_8x8(std::uint32_t pair, Site site) {
  block().warp_collective(kFullWarp, transposed_8x8_lanes, &pair, "movmatrix", site);
  return pair;
}

}  // namespace voca::simt::host
