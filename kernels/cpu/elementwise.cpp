#include "kernels/elementwise.h"

#include <algorithm>

#include "kernels/cpu/chunks.h"
#include "kernels/cpu/half.h"

namespace voca::kernels::cpu {

template <typename T>
void weighted_sum(const WeightedSum<T>& args) {
  const auto alpha = static_cast<T>(args.alpha);
  const auto beta = static_cast<T>(args.beta);
  const T* a = args.a;
  const T* b = args.b;
  T* out = args.out;
  // simd is safe: out may equal a or b, but never partially overlaps them.
  if (b == nullptr) {
    for_chunks(args.elements, kChunkElements, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) out[i] = alpha * a[i];
    });
    return;
  }
  for_chunks(args.elements, kChunkElements, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) out[i] = alpha * a[i] + beta * b[i];
  });
}

template <typename T>
void wide_sum(const WideSum<T>& args) {
  const T* from = args.from;
  Stat<T>* sum = args.sum;
  const bool add = args.add;
  for_chunks(args.elements, kChunkElements, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) sum[i] = add ? sum[i] + from[i] : from[i];
  });
}

template <typename T>
void fill(std::int64_t elements, T value, T* out) {
  for_chunks(elements, kChunkElements,
             [=](std::int64_t begin, std::int64_t end) { std::fill(out + begin, out + end, value); });
}

template <typename From, typename To>
void cast(std::int64_t elements, const From* from, To* to) {
  for_chunks(elements, kChunkElements, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) to[i] = static_cast<To>(from[i]);
  });
}

template <typename To>
void cast_from_half(std::int64_t elements, const std::uint16_t* from, To* to) {
  for_chunks(elements, kChunkElements, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) to[i] = static_cast<To>(half_to_float(from[i]));
  });
}

template void weighted_sum(const WeightedSum<float>& args);
template void weighted_sum(const WeightedSum<double>& args);
template void wide_sum(const WideSum<float>& args);
template void wide_sum(const WideSum<double>& args);
template void fill(std::int64_t elements, float value, float* out);
template void fill(std::int64_t elements, double value, double* out);
template void cast(std::int64_t elements, const float* from, float* to);
template void cast(std::int64_t elements, const float* from, double* to);
template void cast(std::int64_t elements, const double* from, float* to);
template void cast(std::int64_t elements, const double* from, double* to);
template void cast_from_half(std::int64_t elements, const std::uint16_t* from, float* to);
template void cast_from_half(std::int64_t elements, const std::uint16_t* from, double* to);

}  // namespace voca::kernels::cpu
