#include "kernels/softmax.h"

#include "kernels/cuda/dropout.h"
#include "kernels/cuda/reduce.h"

namespace voca::kernels {

using namespace cuda;

namespace {

// A warp takes a row. A lane takes four elements of a 16-column mask tile, at offsets {0, 1, 8, 9} from its
// first; one Philox call gives their decisions (kernels/philox.h).
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kQuad = 4;
constexpr std::int64_t kColumnsPerTurn = kWarp / kQuad * 16;

/// Offset of element i of a lane from its first element.
SIMT_DEVICE int quad_offset(int i) {
  return i % 2 + i / 2 * 8;
}
SIMT_DEVICE std::int64_t first_column() {
  return lane_index() / kQuad * 16 + lane_index() % kQuad * 2;
}

/// Location of a row in the arrays and in the mask.
struct Row {
  std::int64_t offset;  ///< offset of its first element
  std::int64_t matrix;
  std::int64_t i;
};

SIMT_DEVICE Row row_of_warp(std::int64_t query_length, std::int64_t key_length) {
  const std::int64_t row = block_index() * kWarps + warp_index();
  return {row * key_length, row / query_length, row % query_length};
}

// Dropout factors of the four elements of a lane from `column` on.
SIMT_DEVICE void quad_factors(const Mask& mask, const Row& row, std::int64_t column,
                              std::int64_t query_length, std::int64_t key_length, float (&factors)[kQuad]) {
  SIMT_UNROLL
  for (int i = 0; i < kQuad; ++i) factors[i] = 1.0F;
  if (!mask.dropout.enabled()) return;
  const std::uint64_t base =
      static_cast<std::uint64_t>(row.matrix) * attention_mask_size(query_length, key_length);
  const std::uint64_t first = base + attention_mask_element(row.i, column, key_length);
  const std::uint64_t element = mask.dropout.first_element + first;
  if (element % kQuad == 0) {
    // The four decisions are consecutive in one half of a Philox call.
    const Philox4 bits = mask.bits(element / kVec8);
    const bool second_half = element % kVec8 != 0;
    SIMT_UNROLL
    for (int i = 0; i < kQuad; ++i) {
      const bool keeps = dropout_keeps(bits, i + (second_half ? kQuad : 0), mask.dropout.threshold);
      factors[i] = keeps ? mask.scale : 0.0F;
    }
    return;
  }
  SIMT_UNROLL
  for (int i = 0; i < kQuad; ++i)
    factors[i] = dropout_keeps(mask.dropout, first + static_cast<std::uint64_t>(i)) ? mask.scale : 0.0F;
}

/// Calls f(column) for the elements of a row that this lane owns.
template <typename F>
SIMT_DEVICE void for_elements(std::int64_t key_length, F f) {
  for (std::int64_t column = first_column(); column < key_length; column += kColumnsPerTurn) {
    SIMT_UNROLL
    for (int i = 0; i < kQuad; ++i) {
      if (column + quad_offset(i) < key_length) f(column + quad_offset(i));
    }
  }
}

/// Calls f(column, dropout factor) for the same elements.
template <typename F>
SIMT_DEVICE void for_dropped_elements(const Mask& mask, const Row& row, std::int64_t query_length,
                                      std::int64_t key_length, F f) {
  for (std::int64_t column = first_column(); column < key_length; column += kColumnsPerTurn) {
    float factors[kQuad];
    quad_factors(mask, row, column, query_length, key_length, factors);
    SIMT_UNROLL
    for (int i = 0; i < kQuad; ++i) {
      if (column + quad_offset(i) < key_length) f(column + quad_offset(i), factors[i]);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) softmax_forward_kernel(SoftmaxForward<T> args, Mask mask) {
  if (block_index() * kWarps + warp_index() >= args.batch * args.query_length) return;
  const Row row = row_of_warp(args.query_length, args.key_length);
  const T* scores = args.scores + row.offset;
  const auto scale = static_cast<float>(args.scale);
  // Scale before taking the maximum: a negative scale reverses the order of the scores.
  float most = -INFINITY;
  for_elements(args.key_length, [&](std::int64_t j) { most = fmaxf(most, scale * to_float(scores[j])); });
  most = warp_max(most);
  float sum = 0;
  for_elements(args.key_length, [&](std::int64_t j) { sum += expf(scale * to_float(scores[j]) - most); });
  const float inverse = 1.0F / warp_sum(sum);
  for_dropped_elements(mask, row, args.query_length, args.key_length, [&](std::int64_t j, float factor) {
    const float p = expf(scale * to_float(scores[j]) - most) * inverse;
    args.probabilities[row.offset + j] = from_float<T>(p);
    if (args.dropped != nullptr) args.dropped[row.offset + j] = from_float<T>(p * factor);
  });
}

template <typename T>
__global__ void __launch_bounds__(kThreads) softmax_backward_kernel(SoftmaxBackward<T> args, Mask mask) {
  if (block_index() * kWarps + warp_index() >= args.batch * args.query_length) return;
  const Row row = row_of_warp(args.query_length, args.key_length);
  const T* ddropped = args.ddropped + row.offset;
  const T* probabilities = args.probabilities + row.offset;
  // Calls f(j, dp, p) for the elements that this lane owns.
  const auto for_gradients = [&](auto f) {
    for_dropped_elements(mask, row, args.query_length, args.key_length, [&](std::int64_t j, float factor) {
      f(j, to_float(ddropped[j]) * factor, to_float(probabilities[j]));
    });
  };
  float dot = 0;
  for_gradients([&](std::int64_t, float dp, float p) { dot += dp * p; });
  dot = warp_sum(dot);
  const auto scale = static_cast<float>(args.scale);
  for_gradients([&](std::int64_t j, float dp, float p) {
    args.dscores[row.offset + j] = from_float<T>(scale * p * (dp - dot));
  });
}

}  // namespace

template <typename T>
void softmax_forward(Cuda backend, const SoftmaxForward<T>& args) {
  const std::int64_t rows = args.batch * args.query_length;
  if (rows * args.key_length == 0) return;
  simt::launch("softmax_forward", softmax_forward_kernel<T>,
               {blocks_for(rows, kWarps), dim3(kThreads), 0, backend.stream}, args, Mask(args.dropout));
}

template <typename T>
void softmax_backward(Cuda backend, const SoftmaxBackward<T>& args) {
  const std::int64_t rows = args.batch * args.query_length;
  if (rows * args.key_length == 0) return;
  simt::launch("softmax_backward", softmax_backward_kernel<T>,
               {blocks_for(rows, kWarps), dim3(kThreads), 0, backend.stream}, args, Mask(args.dropout));
}

#define VOCA_INSTANTIATE(T)                                      \
  template void softmax_forward(Cuda, const SoftmaxForward<T>&); \
  template void softmax_backward(Cuda, const SoftmaxBackward<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
