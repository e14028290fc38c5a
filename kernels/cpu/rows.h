#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cpu/parallel.h"
#include "kernels/types.h"

// Shared loops over rows: reductions in a fixed order, and partial sums over chunks of rows.

namespace voca::kernels::cpu {
inline namespace VOCA_CPU_LEVEL {

/// Independent partial sums of a reduction, enough for GCC to keep several vectors in flight. Determines the
/// order of additions for any vector width.
inline constexpr int kReductionLanes = 32;

/// Σ_{j<n} term(j). term is called once for every j and may have side effects.
template <typename S, typename Term>
[[nodiscard]] inline S lane_sum(std::int64_t n, Term term) {
  S lanes[kReductionLanes] = {};
  std::int64_t j = 0;
  for (; j + kReductionLanes <= n; j += kReductionLanes) {
#pragma omp simd
    for (int lane = 0; lane < kReductionLanes; ++lane) lanes[lane] += term(j + lane);
  }
  for (int lane = 0; lane < kReductionLanes && j + lane < n; ++lane) lanes[lane] += term(j + lane);
  for (int width = kReductionLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

/// Adds Σ_{j<n} of two terms to first_sum and second_sum; term(j, first, second) sets both terms.
template <typename S, typename Term>
inline void lane_sum2(std::int64_t n, S& first_sum, S& second_sum, Term term) {
  S first[kReductionLanes] = {};
  S second[kReductionLanes] = {};
  std::int64_t j = 0;
  for (; j + kReductionLanes <= n; j += kReductionLanes) {
#pragma omp simd
    for (int lane = 0; lane < kReductionLanes; ++lane) {
      S a;
      S b;
      term(j + lane, a, b);
      first[lane] += a;
      second[lane] += b;
    }
  }
  for (int lane = 0; lane < kReductionLanes && j + lane < n; ++lane) {
    S a;
    S b;
    term(j + lane, a, b);
    first[lane] += a;
    second[lane] += b;
  }
  for (int width = kReductionLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) {
      first[lane] += first[lane + width];
      second[lane] += second[lane + width];
    }
  }
  first_sum += first[0];
  second_sum += second[0];
}

/// max_{j<n} values[j], −∞ for n = 0; ignores NaNs.
template <typename T>
[[nodiscard]] inline T lane_max(std::int64_t n, const T* values) {
  T lanes[kReductionLanes];
  std::fill_n(lanes, kReductionLanes, -std::numeric_limits<T>::infinity());
  const auto larger = [](T value, T most) { return value > most ? value : most; };
  std::int64_t j = 0;
  for (; j + kReductionLanes <= n; j += kReductionLanes) {
#pragma omp simd
    for (int lane = 0; lane < kReductionLanes; ++lane) lanes[lane] = larger(values[j + lane], lanes[lane]);
  }
  for (int lane = 0; lane < kReductionLanes && j + lane < n; ++lane) {
    lanes[lane] = larger(values[j + lane], lanes[lane]);
  }
  for (int width = kReductionLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] = larger(lanes[lane + width], lanes[lane]);
  }
  return lanes[0];
}

/// Chunks of rows as units of parallel work: at most 64, of about 8192 elements or more.
[[nodiscard]] inline RowChunks row_chunks(std::int64_t rows, std::int64_t columns) {
  return {rows, divide_up(8192, std::max<std::int64_t>(columns, 1)), 64};
}

/// out[j] += Σ_chunk partial[chunk · stride + j], in the order of the chunks.
template <typename S, typename T>
inline void add_partial_sums(std::int64_t chunks, std::int64_t stride, std::int64_t columns, const S* partial,
                             T* out) {
  constexpr std::int64_t kBlock = 128;
  for (std::int64_t begin = 0; begin < columns; begin += kBlock) {
    const std::int64_t width = std::min(kBlock, columns - begin);
    S sum[kBlock] = {};
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      const S* row = partial + chunk * stride + begin;
#pragma omp simd
      for (std::int64_t j = 0; j < width; ++j) sum[j] += row[j];
    }
    for (std::int64_t j = 0; j < width; ++j) out[begin + j] += static_cast<T>(sum[j]);
  }
}

}  // namespace VOCA_CPU_LEVEL
}  // namespace voca::kernels::cpu
