#include "kernels/elementwise.h"

#include <algorithm>

#include "kernels/cpu/chunks.h"

namespace voca::kernels {

using namespace cpu;

template <typename T>
void weighted_sum(Cpu, const WeightedSum<T>& args) {
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
void wide_sum(Cpu, const WideSum<T>& args) {
  const T* from = args.from;
  Stat<T>* sum = args.sum;
  const bool add = args.add;
  for_chunks(args.elements, kChunkElements, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) sum[i] = add ? sum[i] + from[i] : from[i];
  });
}

template <typename T>
void fill(Cpu, std::int64_t elements, T value, T* out) {
  for_chunks(elements, kChunkElements,
             [=](std::int64_t begin, std::int64_t end) { std::fill(out + begin, out + end, value); });
}

template <typename From, typename To>
void cast(Cpu, std::int64_t elements, const From* from, To* to) {
  for_chunks(elements, kChunkElements, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) to[i] = static_cast<To>(from[i]);
  });
}

// NOLINTBEGIN(bugprone-macro-parentheses): T is a type
#define VOCA_INSTANTIATE(T)                               \
  template void weighted_sum(Cpu, const WeightedSum<T>&); \
  template void wide_sum(Cpu, const WideSum<T>&);         \
  template void fill(Cpu, std::int64_t, T, T*);           \
  template void cast(Cpu, std::int64_t, const float*, T*);
// NOLINTEND(bugprone-macro-parentheses)
VOCA_CPU_TYPES(VOCA_INSTANTIATE)
template void cast(Cpu, std::int64_t, const double*, float*);

}  // namespace voca::kernels
