#include "kernels/gather_frames.h"

#include "kernels/cuda/elements.h"

namespace voca::kernels {

using namespace cuda;

namespace {

constexpr int kThreads = 256;

// A thread takes a Vec8 of one output row.
template <typename T>
__global__ void __launch_bounds__(kThreads) gather_frames_kernel(GatherFrames<T> args, bool wide) {
  const std::int64_t vec8s = divide_up(args.width, kVec8);
  const std::int64_t row = global_thread() / vec8s;
  const std::int64_t column = global_thread() % vec8s * kVec8;
  if (row >= args.batch * args.length) return;
  const std::int64_t source = source_frame(args.windows[row / args.length], row % args.length);
  const std::int64_t from = source * args.width + column;
  const std::int64_t count = args.width - column;
  float values[kVec8];
  if (args.type == FrameType::kHalf) {
    load_vec8(static_cast<const __half*>(args.frames) + from, count, wide, values);
  } else {
    load_vec8(static_cast<const float*>(args.frames) + from, count, wide, values);
  }
  store_vec8(args.out + row * args.width + column, count, wide, values);
}

}  // namespace

template <typename T>
void gather_frames(Cuda backend, const GatherFrames<T>& args) {
  const std::int64_t work = args.batch * args.length * divide_up(args.width, kVec8);
  if (work == 0) return;
  const bool wide =
      args.width % kVec8 == 0 && on_16_bytes(static_cast<const std::byte*>(args.frames), args.out);
  simt::launch("gather_frames", gather_frames_kernel<T>,
               {blocks_for(work, kThreads), dim3(kThreads), 0, backend.stream}, args, wide);
}

#define VOCA_INSTANTIATE(T) template void gather_frames(Cuda, const GatherFrames<T>&);
VOCA_CUDA_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
