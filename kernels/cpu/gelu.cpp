#include "kernels/gelu.h"

#include "kernels/cpu/dropout.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/rows.h"

namespace voca::kernels {

using namespace cpu;

namespace {

// Calls f(row, first column, columns) for the runs of at most `run` columns in one chunk of rows.
template <typename F>
void for_runs(const RowChunks& chunks, std::int64_t chunk, std::int64_t columns, std::int64_t run, F f) {
  for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) {
    for (std::int64_t begin = 0; begin < columns; begin += run) f(row, begin, std::min(run, columns - begin));
  }
}

}  // namespace

template <typename T>
void gelu_forward(Cpu, const GeluForward<T>& args) {
  const RowChunks chunks = row_chunks(args.rows, args.columns);
  parallel_for(chunks.count, [&](std::int64_t chunk) {
    DropoutRun<T> dropout(args.dropout);
    const std::int32_t threshold = dropout.threshold();
    const T scale = dropout.scale();
    for_runs(chunks, chunk, args.columns, DropoutRun<T>::kLength,
             [&](std::int64_t row, std::int64_t begin, std::int64_t count) {
               const std::int64_t first = row * args.columns + begin;
               const std::uint16_t* bits = dropout.bits(first, count);
               const T* x = args.x + first;
               const T* bias = args.bias != nullptr ? args.bias + begin : nullptr;
               T* y = args.y + first;
#pragma omp simd
               for (std::int64_t j = 0; j < count; ++j) {
                 const T u = bias != nullptr ? x[j] + bias[j] : x[j];
                 y[j] = u * normal(u).cdf * dropout_factor(bits[j], threshold, scale);
               }
             });
  });
}

template <typename T>
void gelu_backward(Cpu, const GeluBackward<T>& args) {
  const RowChunks chunks = row_chunks(args.rows, args.columns);
  T* partials = args.dbias != nullptr ? static_cast<T*>(args.scratch) : nullptr;
  parallel_for(chunks.count, [&](std::int64_t chunk) {
    DropoutRun<T> dropout(args.dropout);
    const std::int32_t threshold = dropout.threshold();
    const T scale = dropout.scale();
    T* partial = partials != nullptr ? partials + chunk * args.columns : nullptr;
    if (partial != nullptr) std::fill_n(partial, args.columns, T{0});
    for_runs(chunks, chunk, args.columns, DropoutRun<T>::kLength,
             [&](std::int64_t row, std::int64_t begin, std::int64_t count) {
               const std::int64_t first = row * args.columns + begin;
               const std::uint16_t* bits = dropout.bits(first, count);
               const T* dy = args.dy + first;
               const T* x = args.x + first;
               const T* bias = args.bias != nullptr ? args.bias + begin : nullptr;
               T* dx = args.dx + first;
#pragma omp simd
               for (std::int64_t j = 0; j < count; ++j) {
                 const T u = bias != nullptr ? x[j] + bias[j] : x[j];
                 const Normal<T> at = normal(u);
                 dx[j] = dy[j] * dropout_factor(bits[j], threshold, scale) * (at.cdf + u * at.pdf);
               }
               if (partial == nullptr) return;
#pragma omp simd
               for (std::int64_t j = 0; j < count; ++j) partial[begin + j] += dx[j];
             });
  });
  if (partials != nullptr) add_partial_sums(chunks.count, args.columns, args.columns, partials, args.dbias);
}

template <typename T>
std::size_t scratch_bytes(Cpu, const GeluBackward<T>& args) {
  return static_cast<std::size_t>(row_chunks(args.rows, args.columns).count * args.columns) * sizeof(T);
}

#define VOCA_INSTANTIATE(T)                                 \
  template void gelu_forward(Cpu, const GeluForward<T>&);   \
  template void gelu_backward(Cpu, const GeluBackward<T>&); \
  template std::size_t scratch_bytes(Cpu, const GeluBackward<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
