#include "kernels/elementwise.h"

#include <algorithm>

#include "kernels/cpu/half.h"

namespace voca::kernels::cpu {

template <typename T>
void weighted_sum(const WeightedSum<T>& args) {
  const auto alpha = static_cast<T>(args.alpha);
  const auto beta = static_cast<T>(args.beta);
  const T* a = args.a;
  const T* b = args.b;
  T* out = args.out;
  const std::int64_t n = args.elements;
  // simd: out may be a or b itself, element for element.
  if (b == nullptr) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) out[i] = alpha * a[i];
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) out[i] = alpha * a[i] + beta * b[i];
  }
}

template <typename T>
void fill(std::int64_t elements, T value, T* out) {
  std::fill_n(out, elements, value);
}

template <typename From, typename To>
void cast(std::int64_t elements, const From* from, To* to) {
#pragma omp simd
  for (std::int64_t i = 0; i < elements; ++i) to[i] = static_cast<To>(from[i]);
}

template <typename To>
void cast_from_half(std::int64_t elements, const std::uint16_t* from, To* to) {
#pragma omp simd
  for (std::int64_t i = 0; i < elements; ++i) to[i] = static_cast<To>(half_to_float(from[i]));
}

template void weighted_sum(const WeightedSum<float>& args);
template void weighted_sum(const WeightedSum<double>& args);
template void fill(std::int64_t elements, float value, float* out);
template void fill(std::int64_t elements, double value, double* out);
template void cast(std::int64_t elements, const float* from, float* to);
template void cast(std::int64_t elements, const float* from, double* to);
template void cast(std::int64_t elements, const double* from, float* to);
template void cast(std::int64_t elements, const double* from, double* to);
template void cast_from_half(std::int64_t elements, const std::uint16_t* from, float* to);
template void cast_from_half(std::int64_t elements, const std::uint16_t* from, double* to);

}  // namespace voca::kernels::cpu
