#include "kernels/positional_encoding.h"

#include <cmath>

#include "kernels/cpu/rows.h"

namespace voca::kernels {

using namespace cpu;

template <typename T>
void positional_encoding_forward(Cpu, const PositionalEncodingForward<T>& args) {
  const RowChunks chunks = row_chunks(args.batch * args.length, args.columns);
  parallel_for(chunks.count, [&](std::int64_t chunk) {
    for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) {
      const T* x = args.x + row * args.columns;
      const T* encoding = args.encoding + row % args.length * args.columns;
      T* y = args.y + row * args.columns;
#pragma omp simd
      for (std::int64_t j = 0; j < args.columns; ++j) y[j] = x[j] + encoding[j];
    }
  });
}

template <typename T>
void positional_encoding_backward(Cpu, const PositionalEncodingBackward<T>& args) {
  // A task owns whole rows of the encoding and sums over the batch in order.
  const RowChunks chunks = row_chunks(args.length, args.batch * args.columns);
  parallel_for(chunks.count, [&](std::int64_t chunk) {
    for (std::int64_t t = chunks.begin(chunk); t < chunks.end(chunk); ++t) {
      T* dencoding = args.dencoding + t * args.columns;
      for (std::int64_t b = 0; b < args.batch; ++b) {
        const T* dy = args.dy + (b * args.length + t) * args.columns;
#pragma omp simd
        for (std::int64_t j = 0; j < args.columns; ++j) dencoding[j] += dy[j];
      }
    }
  });
}

template <typename T>
void sinusoidal_encoding(Cpu, std::int64_t length, std::int64_t columns, T* encoding) {
  for (std::int64_t t = 0; t < length; ++t) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const double exponent = static_cast<double>(j - j % 2) / static_cast<double>(columns);
      const double angle = static_cast<double>(t) / std::pow(10000.0, exponent);
      encoding[t * columns + j] = static_cast<T>(j % 2 == 0 ? std::sin(angle) : std::cos(angle));
    }
  }
}

// NOLINTBEGIN(bugprone-macro-parentheses): T is a type
#define VOCA_INSTANTIATE(T)                                                              \
  template void positional_encoding_forward(Cpu, const PositionalEncodingForward<T>&);   \
  template void positional_encoding_backward(Cpu, const PositionalEncodingBackward<T>&); \
  template void sinusoidal_encoding(Cpu, std::int64_t, std::int64_t, T*);
// NOLINTEND(bugprone-macro-parentheses)
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
