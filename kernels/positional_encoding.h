#pragma once

#include "kernels/types.h"

// Adds a positional encoding to every sequence: y[b, t, h] = x[b, t, h] + encoding[t, h].
// Backward: dx = dy (the caller passes it on), dencoding[t, h] += Σ_b dy[b, t, h].
// Sinusoidal encoding (Vaswani et al. 2017, 3.5): encoding[t, 2i] = sin(t / 10000^(2i/H)),
// encoding[t, 2i+1] = cos(t / 10000^(2i/H)).

namespace voca::kernels {

template <typename T>
struct PositionalEncodingForward {
  std::int64_t batch = 0;
  std::int64_t length = 0;
  std::int64_t columns = 0;
  const T* x = nullptr;         ///< (batch, length, columns)
  const T* encoding = nullptr;  ///< (length, columns)
  T* y = nullptr;               ///< (batch, length, columns), overwritten; may be the same array as x
};

template <typename T>
struct PositionalEncodingBackward {
  std::int64_t batch = 0;
  std::int64_t length = 0;
  std::int64_t columns = 0;
  const T* dy = nullptr;   ///< (batch, length, columns)
  T* dencoding = nullptr;  ///< (length, columns), accumulated into
};

template <typename T>
void positional_encoding_forward(Cpu, const PositionalEncodingForward<T>& args);
template <typename T>
void positional_encoding_backward(Cpu, const PositionalEncodingBackward<T>& args);
/// Fills encoding (length, columns) with the sinusoidal encoding, computed in double.
template <typename T>
void sinusoidal_encoding(Cpu, std::int64_t length, std::int64_t columns, T* encoding);

template <typename T>
void positional_encoding_forward(Cuda, const PositionalEncodingForward<T>& args);
template <typename T>
void positional_encoding_backward(Cuda, const PositionalEncodingBackward<T>& args);
template <typename T>
void sinusoidal_encoding(Cuda, std::int64_t length, std::int64_t columns, T* encoding);

}  // namespace voca::kernels
