#pragma once

#include "kernels/types.h"

// Element-wise operations: fill, sums, conversion.

namespace voca::kernels {

/// out[i] = alpha · a[i] + beta · b[i].
template <typename T>
struct WeightedSum {
  std::int64_t elements = 0;
  double alpha = 1;
  const T* a = nullptr;
  double beta = 1;
  const T* b = nullptr;  ///< null omits the second term
  T* out = nullptr;      ///< overwritten; may be the same array as a or b
};

/// sum[i] = from[i], or sum[i] += from[i].
template <typename T>
struct WideSum {
  std::int64_t elements = 0;
  const T* from = nullptr;
  bool add = false;        ///< false overwrites
  Stat<T>* sum = nullptr;  ///< overwritten or accumulated into
};

template <typename T>
void weighted_sum(Cpu, const WeightedSum<T>& args);
template <typename T>
void wide_sum(Cpu, const WideSum<T>& args);
/// out[i] = value.
template <typename T>
void fill(Cpu, std::int64_t elements, T value, T* out);
/// to[i] = from[i], rounded to nearest even. From or To is float.
template <typename From, typename To>
void cast(Cpu, std::int64_t elements, const From* from, To* to);

template <typename T>
void weighted_sum(Cuda, const WeightedSum<T>& args);
template <typename T>
void wide_sum(Cuda, const WideSum<T>& args);
template <typename T>
void fill(Cuda, std::int64_t elements, T value, T* out);
template <typename From, typename To>
void cast(Cuda, std::int64_t elements, const From* from, To* to);
/// Kernel for a CUDA graph node, launched with one thread: *word = value.
using SetWord = void (*)(std::uint32_t* word, std::uint32_t value);
[[nodiscard]] SetWord set_word(Cuda);

}  // namespace voca::kernels
