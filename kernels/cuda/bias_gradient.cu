#include "kernels/bias_gradient.h"

#include "kernels/cuda/column_sums.h"

namespace voca::kernels {

using namespace cuda;

namespace {

template <typename T, bool kWhole>
__global__ void __launch_bounds__(kColumnThreads)
    bias_gradient_kernel(BiasGradient<T> args, RowChunks chunks) {
  for_vec8s_of_rows<4>(
      chunks, args.columns, static_cast<float*>(args.scratch),
      [&](std::int64_t row, std::int64_t column, std::int64_t count) {
        return fetch_vec8<kWhole>(args.dy + row * args.columns + column, count);
      },
      [](const Vec8<T>& fetched, std::int64_t /*row*/, std::int64_t /*column*/, std::int64_t /*count*/,
         float(&values)[kVec8]) { unpack_vec8(fetched, values); });
}

}  // namespace

template <typename T>
void bias_gradient(Cuda backend, const BiasGradient<T>& args) {
  if (args.rows * args.columns == 0) return;
  const RowChunks chunks = column_chunks(args.rows);
  by_vec8s(args.columns % kVec8 == 0 && on_16_bytes(args.dy), [&]<bool kWhole>() {
    simt::launch("bias_gradient", bias_gradient_kernel<T, kWhole>,
                 column_blocks(args.rows, args.columns, backend.stream), args, chunks);
  });
  add_partial_sums<T>({chunks.count, args.columns, 1, static_cast<const float*>(args.scratch), {args.dbias}},
                      backend.stream);
}

template <typename T>
std::size_t scratch_bytes(Cuda, const BiasGradient<T>& args) {
  return column_sums_bytes(args.rows, args.columns);
}

#define VOCA_INSTANTIATE(T)                                  \
  template void bias_gradient(Cuda, const BiasGradient<T>&); \
  template std::size_t scratch_bytes(Cuda, const BiasGradient<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
