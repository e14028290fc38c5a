#include "kernels/elementwise.h"

#include "kernels/cuda/elements.h"

namespace voca::kernels {

using namespace cuda;

namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads) weighted_sum_kernel(WeightedSum<T> args, bool wide) {
  const std::int64_t first = global_thread() * kVec8;
  const std::int64_t count = args.elements - first;
  if (count <= 0) return;
  float a[kVec8];
  load_vec8(args.a + first, count, wide, a);
  const auto alpha = static_cast<float>(args.alpha);
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) a[i] *= alpha;
  if (args.b != nullptr) {
    float b[kVec8];
    load_vec8(args.b + first, count, wide, b);
    const auto beta = static_cast<float>(args.beta);
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) a[i] += beta * b[i];
  }
  store_vec8(args.out + first, count, wide, a);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) wide_sum_kernel(WideSum<T> args, bool wide) {
  const std::int64_t first = global_thread() * kVec8;
  const std::int64_t count = args.elements - first;
  if (count <= 0) return;
  float from[kVec8];
  load_vec8(args.from + first, count, wide, from);
  if (args.add) {
    float sum[kVec8];
    load_vec8(args.sum + first, count, wide, sum);
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) from[i] += sum[i];
  }
  store_vec8(args.sum + first, count, wide, from);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) fill_kernel(std::int64_t elements, T value, T* out, bool wide) {
  const std::int64_t first = global_thread() * kVec8;
  const std::int64_t count = elements - first;
  if (count <= 0) return;
  const float x = to_float(value);
  const float values[kVec8] = {x, x, x, x, x, x, x, x};
  store_vec8(out + first, count, wide, values);
}

template <typename From, typename To>
__global__ void __launch_bounds__(kThreads)
    cast_kernel(std::int64_t elements, const From* from, To* to, bool wide) {
  const std::int64_t first = global_thread() * kVec8;
  const std::int64_t count = elements - first;
  if (count <= 0) return;
  float values[kVec8];
  load_vec8(from + first, count, wide, values);
  store_vec8(to + first, count, wide, values);
}

simt::LaunchShape shape_for(std::int64_t elements, Stream stream) {
  return {blocks_for(divide_up(elements, kVec8), kThreads), dim3(kThreads), 0, stream};
}

__global__ void set_word_kernel(std::uint32_t* word, std::uint32_t value) {
  *word = value;
}

}  // namespace

SetWord set_word(Cuda) {
  return set_word_kernel;
}

template <typename T>
void weighted_sum(Cuda backend, const WeightedSum<T>& args) {
  if (args.elements == 0) return;
  simt::launch("weighted_sum", weighted_sum_kernel<T>, shape_for(args.elements, backend.stream), args,
               on_16_bytes(args.a, args.b, args.out));
}

template <typename T>
void wide_sum(Cuda backend, const WideSum<T>& args) {
  if (args.elements == 0) return;
  simt::launch("wide_sum", wide_sum_kernel<T>, shape_for(args.elements, backend.stream), args,
               on_16_bytes(args.from, args.sum));
}

template <typename T>
void fill(Cuda backend, std::int64_t elements, T value, T* out) {
  if (elements == 0) return;
  simt::launch("fill", fill_kernel<T>, shape_for(elements, backend.stream), elements, value, out,
               on_16_bytes(out));
}

template <typename From, typename To>
void cast(Cuda backend, std::int64_t elements, const From* from, To* to) {
  if (elements == 0) return;
  simt::launch("cast", cast_kernel<From, To>, shape_for(elements, backend.stream), elements, from, to,
               on_16_bytes(from, to));
}

#define VOCA_INSTANTIATE(T)                                \
  template void weighted_sum(Cuda, const WeightedSum<T>&); \
  template void wide_sum(Cuda, const WideSum<T>&);         \
  template void fill(Cuda, std::int64_t, T, T*);           \
  template void cast(Cuda, std::int64_t, const float*, T*);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)
#define VOCA_INSTANTIATE_WIDENING(T) template void cast(Cuda, std::int64_t, const T*, float*);
VOCA_TENSOR_CORE_TYPES(VOCA_INSTANTIATE_WIDENING)

}  // namespace voca::kernels
