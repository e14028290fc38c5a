#include "kernels/pooling.h"

#include "kernels/cuda/elements.h"

namespace voca::kernels {

using namespace cuda;

namespace {

// A block takes 32 Vec8s of columns of one sample; its eight warps share the frames.
constexpr int kThreads = 256;
constexpr int kSlices = kThreads / kWarp;
constexpr int kColumns = kWarp * kVec8;
/// Frames in flight per thread.
constexpr int kFramesAtOnce = 4;

/// Sum, maximum and first frame of the maximum over some frames. The first NaN is kept as the maximum.
struct Pooled {
  double sum;
  float maximum;
  std::int32_t frame;

  SIMT_DEVICE void take_maximum(float value, std::int32_t t) {
    const bool is_nan = value != value;
    const bool had_nan = maximum != maximum;
    if (value > maximum || (is_nan && !had_nan) || frame < 0) {
      maximum = value;
      frame = t;
    }
  }
};

template <typename T, bool kWhole>
__global__ void __launch_bounds__(kThreads) pooling_forward_kernel(PoolingForward<T> args) {
  SIMT_SHARED(double, sums, [kSlices][kColumns]);
  SIMT_SHARED(float, maxima, [kSlices][kColumns]);
  SIMT_SHARED(std::int32_t, frames, [kSlices][kColumns]);
  const std::int64_t batch = blockIdx.y;
  const std::int64_t column = (block_index() * kWarp + lane_index()) * kVec8;
  const std::int64_t count = args.columns - column;
  const T* x = args.x + batch * args.length * args.columns + column;
  Pooled pooled[kVec8];
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) pooled[i] = {0, 0, -1};
  // Each warp takes a slice of consecutive frames, so ties between slices go to the lower frame.
  const std::int64_t run = divide_up(args.length, kSlices);
  const std::int64_t end = warp_index() * run + run < args.length ? warp_index() * run + run : args.length;
  for (std::int64_t first = warp_index() * run; first < end && count > 0; first += kFramesAtOnce) {
    Vec8<T> fetched[kFramesAtOnce];
    SIMT_UNROLL
    for (int f = 0; f < kFramesAtOnce; ++f) {
      if (first + f < end) fetched[f] = fetch_vec8<kWhole>(x + (first + f) * args.columns, count);
    }
    SIMT_UNROLL
    for (int f = 0; f < kFramesAtOnce; ++f) {
      if (first + f >= end) break;
      float values[kVec8];
      unpack_vec8(fetched[f], values);
      SIMT_UNROLL
      for (int i = 0; i < kVec8; ++i) {
        pooled[i].sum += static_cast<double>(values[i]);
        pooled[i].take_maximum(values[i], static_cast<std::int32_t>(first + f));
      }
    }
  }
  SIMT_UNROLL
  for (int i = 0; i < kVec8; ++i) {
    const int place = i * kWarp + lane_index();
    sums[warp_index()][place] = pooled[i].sum;
    maxima[warp_index()][place] = pooled[i].maximum;
    frames[warp_index()][place] = pooled[i].frame;
  }
  __syncthreads();
  // One column per thread.
  const int place = thread_index();
  const std::int64_t mine = (block_index() * kWarp + place % kWarp) * kVec8 + place / kWarp;
  if (mine >= args.columns) return;
  Pooled all{0, 0, -1};
  for (int slice = 0; slice < kSlices; ++slice) {
    all.sum += sums[slice][place];
    if (frames[slice][place] >= 0) all.take_maximum(maxima[slice][place], frames[slice][place]);
  }
  double y = all.sum / static_cast<double>(args.length);
  if (args.argmax != nullptr) {
    y += static_cast<double>(all.maximum);
    args.argmax[batch * args.columns + mine] = all.frame;
  }
  args.y[batch * args.columns + mine] = from_float<T>(static_cast<float>(y));
}

/// Frames per backward block, kFramesAtOnce per warp.
constexpr int kFramesOfBlock = kSlices * kFramesAtOnce;

// Loads the frames of the maxima of eight columns.
template <bool kWhole>
SIMT_DEVICE void load_frames(const std::int32_t* argmax, std::int64_t count, std::int32_t (&frames)[kVec8]) {
  if constexpr (kWhole) {
    SIMT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const uint4 four = simt::load_16(argmax + half * 4);
      frames[half * 4] = static_cast<std::int32_t>(four.x);
      frames[half * 4 + 1] = static_cast<std::int32_t>(four.y);
      frames[half * 4 + 2] = static_cast<std::int32_t>(four.z);
      frames[half * 4 + 3] = static_cast<std::int32_t>(four.w);
    }
  } else {
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) frames[i] = i < count ? argmax[i] : -1;
  }
}

// A warp takes 32 Vec8s of columns and four frames.
template <typename T, bool kWhole>
__global__ void __launch_bounds__(kThreads) pooling_backward_kernel(PoolingBackward<T> args) {
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.y) * kWarp + lane_index()) * kVec8;
  const std::int64_t count = args.columns - column;
  if (count <= 0) return;
  const std::int64_t first = block_index() * kFramesOfBlock + warp_index() * kFramesAtOnce;
  const std::int64_t batch = blockIdx.z;
  T* dx = args.dx + (batch * args.length + first) * args.columns + column;
  Vec8<T> fetched[kFramesAtOnce] = {};
  if (args.accumulate_dx) {
    SIMT_UNROLL
    for (int f = 0; f < kFramesAtOnce; ++f) {
      if (first + f < args.length) fetched[f] = fetch_vec8<kWhole>(dx + f * args.columns, count);
    }
  }
  const std::int64_t source = batch * args.columns + column;
  const float inverse_length = 1.0F / static_cast<float>(args.length);
  float dy[kVec8];
  std::int32_t frames[kVec8] = {-1, -1, -1, -1, -1, -1, -1, -1};
  load_vec8<kWhole>(args.dy + source, count, dy);
  if (args.argmax != nullptr) load_frames<kWhole>(args.argmax + source, count, frames);
  SIMT_UNROLL
  for (int f = 0; f < kFramesAtOnce; ++f) {
    if (first + f >= args.length) return;
    float out[kVec8];
    unpack_vec8(fetched[f], out);
    SIMT_UNROLL
    for (int i = 0; i < kVec8; ++i) {
      float gradient = dy[i] * inverse_length;
      if (frames[i] == first + f) gradient += dy[i];
      out[i] += gradient;
    }
    store_vec8<kWhole>(dx + f * args.columns, count, out);
  }
}

}  // namespace

template <typename T>
void pooling_forward(Cuda backend, const PoolingForward<T>& args) {
  if (args.batch * args.columns == 0) return;
  const dim3 grid(static_cast<unsigned>(divide_up(args.columns, kColumns)),
                  static_cast<unsigned>(args.batch));
  by_vec8s(args.columns % kVec8 == 0 && on_16_bytes(args.x), [&]<bool kWhole>() {
    simt::launch("pooling_forward", pooling_forward_kernel<T, kWhole>,
                 {grid, dim3(kThreads), 0, backend.stream}, args);
  });
}

template <typename T>
void pooling_backward(Cuda backend, const PoolingBackward<T>& args) {
  if (args.batch * args.length * args.columns == 0) return;
  const dim3 grid(static_cast<unsigned>(divide_up(args.length, kFramesOfBlock)),
                  static_cast<unsigned>(divide_up(args.columns, kColumns)),
                  static_cast<unsigned>(args.batch));
  by_vec8s(args.columns % kVec8 == 0 && on_16_bytes(args.dy, args.argmax, args.dx), [&]<bool kWhole>() {
    simt::launch("pooling_backward", pooling_backward_kernel<T, kWhole>,
                 {grid, dim3(kThreads), 0, backend.stream}, args);
  });
}

#define VOCA_INSTANTIATE(T)                                      \
  template void pooling_forward(Cuda, const PoolingForward<T>&); \
  template void pooling_backward(Cuda, const PoolingBackward<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
