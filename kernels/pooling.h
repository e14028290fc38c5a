#pragma once

#include "kernels/types.h"

// Pooling over time: y[b, h] = mean_t x[b, t, h] + max_t x[b, t, h], or only the mean if argmax is null. The
// gradient of the maximum goes to the first frame that attains it. A NaN in a column makes the maximum of
// that column NaN.

namespace voca::kernels {

template <typename T>
struct PoolingForward {
  std::int64_t batch = 0;
  std::int64_t length = 0;   ///< T ≥ 1
  std::int64_t columns = 0;  ///< H
  const T* x = nullptr;      ///< (batch, length, columns)
  T* y = nullptr;            ///< (batch, columns), overwritten
  std::int32_t* argmax =
      nullptr;  ///< (batch, columns), overwritten, saved for backward; null for mean pooling
};

template <typename T>
struct PoolingBackward {
  std::int64_t batch = 0;
  std::int64_t length = 0;
  std::int64_t columns = 0;
  const T* dy = nullptr;                 ///< (batch, columns)
  const std::int32_t* argmax = nullptr;  ///< (batch, columns), saved by forward; null for mean pooling
  T* dx = nullptr;                       ///< (batch, length, columns)
  bool accumulate_dx = false;            ///< dx is accumulated into instead of overwritten
};

template <typename T>
void pooling_forward(Cpu, const PoolingForward<T>& args);
template <typename T>
void pooling_backward(Cpu, const PoolingBackward<T>& args);

template <typename T>
void pooling_forward(Cuda, const PoolingForward<T>& args);
template <typename T>
void pooling_backward(Cuda, const PoolingBackward<T>& args);

}  // namespace voca::kernels
