#include "kernels/gelu.h"

#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/dropout.h"
#include "kernels/cuda/normal.h"

namespace voca::kernels::cuda {

namespace {

constexpr int kThreads = 256;

// u = x + bias
template <typename T>
SIMT_DEVICE void load_biased(const T* x, const T* bias, std::int64_t element, std::int64_t column,
                             std::int64_t count, bool wide, float (&u)[kOctet]) {
  load_octet(x + element, count, wide, u);
  if (bias == nullptr) return;
  float b[kOctet];
  load_octet(bias + column, count, wide, b);
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) u[i] += b[i];
}

// A thread takes an octet of one row.
template <typename T>
__global__ void __launch_bounds__(kThreads) gelu_forward_kernel(GeluForward<T> args, Mask mask, bool wide) {
  const std::int64_t octets = divide_up(args.columns, kOctet);
  const std::int64_t row = global_thread() / octets;
  const std::int64_t column = global_thread() % octets * kOctet;
  if (row >= args.rows) return;
  const std::int64_t element = row * args.columns + column;
  const std::int64_t count = args.columns - column;
  float u[kOctet];
  float factors[kOctet];
  load_biased(args.x, args.bias, element, column, count, wide, u);
  octet_factors(mask, element, factors);
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) u[i] = u[i] * normal(u[i]).cdf * factors[i];
  store_octet(args.y + element, count, wide, u);
}

template <typename T>
__global__ void __launch_bounds__(kColumnThreads)
    gelu_backward_kernel(GeluBackward<T> args, RowChunks chunks, Mask mask, bool wide) {
  float* partials = args.dbias != nullptr ? static_cast<float*>(args.scratch) : nullptr;
  for_octets_of_rows(chunks, args.columns, partials,
                     [&](std::int64_t row, std::int64_t column, std::int64_t count, float(&dx)[kOctet]) {
                       const std::int64_t element = row * args.columns + column;
                       float u[kOctet];
                       float factors[kOctet];
                       load_biased(args.x, args.bias, element, column, count, wide, u);
                       load_octet(args.dy + element, count, wide, dx);
                       octet_factors(mask, element, factors);
                       SIMT_UNROLL
                       for (int i = 0; i < kOctet; ++i) {
                         const Normal at = normal(u[i]);
                         dx[i] = dx[i] * factors[i] * (at.cdf + u[i] * at.pdf);
                       }
                       store_octet(args.dx + element, count, wide, dx);
                     });
}

}  // namespace

template <typename T>
void gelu_forward(const GeluForward<T>& args, void* stream) {
  const std::int64_t work = args.rows * divide_up(args.columns, kOctet);
  if (work == 0) return;
  simt::launch("gelu_forward", gelu_forward_kernel<T>,
               {blocks_for(work, kThreads), dim3(kThreads), 0, stream}, args, Mask(args.dropout),
               args.columns % kOctet == 0 && on_16_bytes(args.x, args.bias, args.y));
}

template <typename T>
void gelu_backward(const GeluBackward<T>& args, void* stream) {
  if (args.rows * args.columns == 0) return;
  const RowChunks chunks = column_chunks(args.rows);
  simt::launch("gelu_backward", gelu_backward_kernel<T>, column_blocks(args.rows, args.columns, stream), args,
               chunks, Mask(args.dropout),
               args.columns % kOctet == 0 && on_16_bytes(args.dy, args.x, args.bias, args.dx));
  if (args.dbias == nullptr) return;
  add_partial_sums<T>({chunks.count, args.columns, 1, static_cast<const float*>(args.scratch), {args.dbias}},
                      stream);
}

std::size_t gelu_backward_scratch_bytes(std::int64_t rows, std::int64_t columns) {
  return column_sums_bytes(rows, columns);
}

template void gelu_forward(const GeluForward<float>&, void*);
template void gelu_forward(const GeluForward<__nv_bfloat16>&, void*);
template void gelu_forward(const GeluForward<__half>&, void*);
template void gelu_backward(const GeluBackward<float>&, void*);
template void gelu_backward(const GeluBackward<__nv_bfloat16>&, void*);
template void gelu_backward(const GeluBackward<__half>&, void*);

}  // namespace voca::kernels::cuda
