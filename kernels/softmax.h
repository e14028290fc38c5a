#pragma once

#include "kernels/philox.h"
#include "kernels/types.h"

// Row softmax with scale and dropout, the middle step of the unfused attention path:
//
//   p = softmax(scale · s),   out = D(p)
//
// over matrices (batch, query_length, key_length). Element (b, i, j) has mask index dropout.first_element +
// b · attention_mask_size(...) + attention_mask_element(i, j, ...), as in fused attention.
// Forward saves p (before dropout). Backward: dp = D'(dout), ds = scale · p · (dp − Σ_j dp · p).

namespace voca::kernels {

template <typename T>
struct SoftmaxForward {
  std::int64_t batch = 0;
  std::int64_t query_length = 0;
  std::int64_t key_length = 0;
  double scale = 1;
  const T* scores = nullptr;  ///< (batch, query_length, key_length); may be the same array as probabilities
  Dropout dropout{};
  T* probabilities = nullptr;  ///< same shape, overwritten; before dropout
  T* dropped = nullptr;        ///< same shape, overwritten; after dropout; may be null if dropout is off
};

template <typename T>
struct SoftmaxBackward {
  std::int64_t batch = 0;
  std::int64_t query_length = 0;
  std::int64_t key_length = 0;
  double scale = 1;
  const T* ddropped = nullptr;       ///< (batch, query_length, key_length)
  const T* probabilities = nullptr;  ///< same shape, saved by forward
  Dropout dropout{};
  T* dscores = nullptr;  ///< same shape, overwritten; may be the same array as ddropped
};

template <typename T>
void softmax_forward(Cpu, const SoftmaxForward<T>& args);
template <typename T>
void softmax_backward(Cpu, const SoftmaxBackward<T>& args);

template <typename T>
void softmax_forward(Cuda, const SoftmaxForward<T>& args);
template <typename T>
void softmax_backward(Cuda, const SoftmaxBackward<T>& args);

}  // namespace voca::kernels
