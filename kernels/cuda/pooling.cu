#include "kernels/pooling.h"

#include "kernels/cuda/elements.h"

namespace voca::kernels::cuda {

namespace {

// A block takes 32 octets of columns of one sample; its eight warps share the frames.
constexpr int kThreads = 256;
constexpr int kSlices = kThreads / kWarp;
constexpr int kColumns = kWarp * kOctet;

/// Sum and first maximum over some frames. The first NaN is the maximum and stays.
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

template <typename T>
__global__ void __launch_bounds__(kThreads) pooling_forward_kernel(PoolingForward<T> args, bool wide) {
  SIMT_SHARED(double, sums, [kSlices][kColumns]);
  SIMT_SHARED(float, maxima, [kSlices][kColumns]);
  SIMT_SHARED(std::int32_t, frames, [kSlices][kColumns]);
  const std::int64_t batch = blockIdx.y;
  const std::int64_t column = (block_index() * kWarp + lane_index()) * kOctet;
  const std::int64_t count = args.columns - column;
  const T* x = args.x + batch * args.length * args.columns + column;
  Pooled pooled[kOctet];
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) pooled[i] = {0, 0, -1};
  // Warp w takes a run of consecutive frames: ties between slices go to the lower one.
  const std::int64_t run = divide_up(args.length, kSlices);
  const std::int64_t end = warp_index() * run + run < args.length ? warp_index() * run + run : args.length;
  for (std::int64_t t = warp_index() * run; t < end; ++t) {
    float values[kOctet];
    load_octet(x + t * args.columns, count, wide, values);
    SIMT_UNROLL
    for (int i = 0; i < kOctet; ++i) {
      pooled[i].sum += static_cast<double>(values[i]);
      pooled[i].take_maximum(values[i], static_cast<std::int32_t>(t));
    }
  }
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) {
    const int place = i * kWarp + lane_index();
    sums[warp_index()][place] = pooled[i].sum;
    maxima[warp_index()][place] = pooled[i].maximum;
    frames[warp_index()][place] = pooled[i].frame;
  }
  __syncthreads();
  // One column a thread.
  const int place = thread_index();
  const std::int64_t mine = (block_index() * kWarp + place % kWarp) * kOctet + place / kWarp;
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

// A thread takes an octet of one frame.
template <typename T>
__global__ void __launch_bounds__(kThreads) pooling_backward_kernel(PoolingBackward<T> args, bool wide) {
  const std::int64_t octets = divide_up(args.columns, kOctet);
  const std::int64_t row = global_thread() / octets;
  const std::int64_t column = global_thread() % octets * kOctet;
  if (row >= args.batch * args.length) return;
  const std::int64_t source = row / args.length * args.columns + column;
  const auto t = static_cast<std::int32_t>(row % args.length);
  const std::int64_t count = args.columns - column;
  const float inverse_length = 1.0F / static_cast<float>(args.length);
  T* dx = args.dx + row * args.columns + column;
  float dy[kOctet];
  float out[kOctet] = {};
  load_octet(args.dy + source, count, wide, dy);
  if (args.accumulate_dx) load_octet(dx, count, wide, out);
  SIMT_UNROLL
  for (int i = 0; i < kOctet; ++i) {
    float gradient = dy[i] * inverse_length;
    if (args.argmax != nullptr && i < count && args.argmax[source + i] == t) gradient += dy[i];
    out[i] += gradient;
  }
  store_octet(dx, count, wide, out);
}

}  // namespace

template <typename T>
void pooling_forward(const PoolingForward<T>& args, void* stream) {
  if (args.batch * args.columns == 0) return;
  const dim3 grid(static_cast<unsigned>(divide_up(args.columns, kColumns)),
                  static_cast<unsigned>(args.batch));
  simt::launch("pooling_forward", pooling_forward_kernel<T>, {grid, dim3(kThreads), 0, stream}, args,
               args.columns % kOctet == 0 && on_16_bytes(args.x));
}

template <typename T>
void pooling_backward(const PoolingBackward<T>& args, void* stream) {
  const std::int64_t work = args.batch * args.length * divide_up(args.columns, kOctet);
  if (work == 0) return;
  simt::launch("pooling_backward", pooling_backward_kernel<T>,
               {blocks_for(work, kThreads), dim3(kThreads), 0, stream}, args,
               args.columns % kOctet == 0 && on_16_bytes(args.dy, args.dx));
}

template void pooling_forward(const PoolingForward<float>&, void*);
template void pooling_forward(const PoolingForward<__nv_bfloat16>&, void*);
template void pooling_forward(const PoolingForward<__half>&, void*);
template void pooling_backward(const PoolingBackward<float>&, void*);
template void pooling_backward(const PoolingBackward<__nv_bfloat16>&, void*);
template void pooling_backward(const PoolingBackward<__half>&, void*);

}  // namespace voca::kernels::cuda
