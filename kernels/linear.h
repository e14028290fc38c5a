#pragma once

#include "kernels/types.h"

// Linear layer (torch.nn.Linear): y = x · Wᵀ + b.
// Backward: dx = dy · W, dW += dyᵀ · x, db += Σ_rows dy.

namespace voca::kernels {

template <typename T>
struct LinearForward {
  std::int64_t rows = 0;
  std::int64_t in_features = 0;
  std::int64_t out_features = 0;
  const T* x = nullptr;       ///< (rows, in_features)
  const T* weight = nullptr;  ///< (out_features, in_features)
  const T* bias = nullptr;    ///< (out_features); null if there is none
  T* y = nullptr;             ///< (rows, out_features), overwritten
};

template <typename T>
struct LinearBackward {
  std::int64_t rows = 0;
  std::int64_t in_features = 0;
  std::int64_t out_features = 0;
  const T* dy = nullptr;       ///< (rows, out_features)
  const T* x = nullptr;        ///< (rows, in_features), as in forward
  const T* weight = nullptr;   ///< (out_features, in_features)
  T* dx = nullptr;             ///< (rows, in_features); null if not wanted
  bool accumulate_dx = false;  ///< dx is accumulated into instead of overwritten
  T* dweight = nullptr;        ///< (out_features, in_features), accumulated into
  T* dbias = nullptr;          ///< (out_features), accumulated into; null if another operation computes it
};

namespace cpu {
template <typename T>
void linear_forward(const LinearForward<T>& args);
template <typename T>
void linear_backward(const LinearBackward<T>& args);
}  // namespace cpu

}  // namespace voca::kernels
