#include "kernels/positional_encoding.h"

#include "kernels/cuda/elements.h"

namespace voca::kernels {

using namespace cuda;

namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    positional_encoding_forward_kernel(PositionalEncodingForward<T> args, bool wide) {
  const std::int64_t vec8s = divide_up(args.columns, kVec8);
  const std::int64_t row = global_thread() / vec8s;
  const std::int64_t column = global_thread() % vec8s * kVec8;
  if (row >= args.batch * args.length) return;
  const std::int64_t count = args.columns - column;
  float x[kVec8];
  float encoding[kVec8];
  load_vec8(args.x + row * args.columns + column, count, wide, x);
  load_vec8(args.encoding + row % args.length * args.columns + column, count, wide, encoding);
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) x[i] += encoding[i];
  store_vec8(args.y + row * args.columns + column, count, wide, x);
}

// A thread owns a Vec8 of the encoding and sums over the batch in order.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    positional_encoding_backward_kernel(PositionalEncodingBackward<T> args, bool wide) {
  const std::int64_t size = args.length * args.columns;
  const std::int64_t first = global_thread() * kVec8;
  const std::int64_t count = size - first;
  if (count <= 0) return;
  float sum[kVec8];
  load_vec8(args.dencoding + first, count, wide, sum);
  for (std::int64_t b = 0; b < args.batch; ++b) {
    float dy[kVec8];
    load_vec8(args.dy + b * size + first, count, wide, dy);
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) sum[i] += dy[i];
  }
  store_vec8(args.dencoding + first, count, wide, sum);
}

// Computes in double; runs once per training run.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    sinusoidal_encoding_kernel(std::int64_t length, std::int64_t columns, T* encoding) {
  if (global_thread() >= length * columns) return;
  const std::int64_t t = global_thread() / columns;
  const std::int64_t j = global_thread() % columns;
  const double exponent = static_cast<double>(j - j % 2) / static_cast<double>(columns);
  const double angle = static_cast<double>(t) / pow(10000.0, exponent);
  encoding[global_thread()] = from_float<T>(static_cast<float>(j % 2 == 0 ? sin(angle) : cos(angle)));
}

}  // namespace

template <typename T>
void positional_encoding_forward(Cuda backend, const PositionalEncodingForward<T>& args) {
  const std::int64_t work = args.batch * args.length * divide_up(args.columns, kVec8);
  if (work == 0) return;
  simt::launch("positional_encoding_forward", positional_encoding_forward_kernel<T>,
               {blocks_for(work, kThreads), dim3(kThreads), 0, backend.stream}, args,
               args.columns % kVec8 == 0 && on_16_bytes(args.x, args.encoding, args.y));
}

template <typename T>
void positional_encoding_backward(Cuda backend, const PositionalEncodingBackward<T>& args) {
  const std::int64_t size = args.length * args.columns;
  if (size == 0) return;
  simt::launch("positional_encoding_backward", positional_encoding_backward_kernel<T>,
               {blocks_for(divide_up(size, kVec8), kThreads), dim3(kThreads), 0, backend.stream}, args,
               size % kVec8 == 0 && on_16_bytes(args.dy, args.dencoding));
}

template <typename T>
void sinusoidal_encoding(Cuda backend, std::int64_t length, std::int64_t columns, T* encoding) {
  if (length * columns == 0) return;
  simt::launch("sinusoidal_encoding", sinusoidal_encoding_kernel<T>,
               {blocks_for(length * columns, kThreads), dim3(kThreads), 0, backend.stream}, length, columns,
               encoding);
}

#define VOCA_INSTANTIATE(T)                                                               \
  template void positional_encoding_forward(Cuda, const PositionalEncodingForward<T>&);   \
  template void positional_encoding_backward(Cuda, const PositionalEncodingBackward<T>&); \
  template void sinusoidal_encoding(Cuda, std::int64_t, std::int64_t, T*);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
