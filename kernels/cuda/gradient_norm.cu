#include "kernels/gradient_norm.h"

#include "kernels/cuda/elements.h"
#include "kernels/cuda/reduce.h"

namespace voca::kernels {

using namespace cuda;

namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) partial_squares_kernel(GradientNorm<T> args, bool wide) {
  const std::int64_t begin = block_index() * kGradientNormChunk;
  const std::int64_t end =
      begin + kGradientNormChunk < args.elements ? begin + kGradientNormChunk : args.elements;
  double sum = 0;
  for (std::int64_t i = begin + thread_index() * kVec8; i < end; i += kThreads * kVec8) {
    float values[kVec8];
    load_vec8(args.gradient + i, end - i, wide, values);
    SIMT_UNROLL
    for (int j = 0; j < kVec8; ++j) sum += static_cast<double>(values[j]) * static_cast<double>(values[j]);
  }
  sum = block_sum<kThreads>(sum);
  if (thread_index() == 0) static_cast<double*>(args.scratch)[block_index()] = sum;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) root_of_sum_kernel(GradientNorm<T> args, std::int64_t partials) {
  double sum = 0;
  for (std::int64_t i = thread_index(); i < partials; i += kThreads)
    sum += static_cast<const double*>(args.scratch)[i];
  sum = block_sum<kThreads>(sum);
  if (thread_index() == 0) args.norm[0] = static_cast<float>(sqrt(sum));
}

}  // namespace

template <typename T>
std::size_t scratch_bytes(Cuda, const GradientNorm<T>& args) {
  return static_cast<std::size_t>(divide_up(args.elements, kGradientNormChunk)) * sizeof(double);
}

template <typename T>
void gradient_norm(Cuda backend, const GradientNorm<T>& args) {
  const std::int64_t partials = divide_up(args.elements, kGradientNormChunk);
  if (partials > 0) {
    simt::launch("partial_squares", partial_squares_kernel<T>,
                 {blocks_for(partials, 1), dim3(kThreads), 0, backend.stream}, args,
                 on_16_bytes(args.gradient));
  }
  simt::launch("root_of_sum", root_of_sum_kernel<T>, {dim3(1), dim3(kThreads), 0, backend.stream}, args,
               partials);
}

#define VOCA_INSTANTIATE(T)                                  \
  template void gradient_norm(Cuda, const GradientNorm<T>&); \
  template std::size_t scratch_bytes(Cuda, const GradientNorm<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
