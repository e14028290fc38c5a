#include "kernels/gather_frames.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cpu/chunks.h"
#include "kernels/cpu/half.h"

namespace voca::kernels {

using namespace cpu;

namespace {

template <typename T>
void convert_row(const float* from, std::int64_t width, T* to) {
  if constexpr (std::is_same_v<T, float>) {
    std::copy_n(from, width, to);
  } else {
    for (std::int64_t j = 0; j < width; ++j) to[j] = static_cast<T>(from[j]);
  }
}

template <typename T>
void convert_row(const std::uint16_t* from, std::int64_t width, T* __restrict to) {
  for (std::int64_t j = 0; j < width; ++j) to[j] = static_cast<T>(half_to_float(from[j]));
}

template <typename Frame, typename T>
void gather(const GatherFrames<T>& args, const Frame* frames) {
  for_row_chunks(args.batch * args.length, args.width, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t source = source_frame(args.windows[row / args.length], row % args.length);
      convert_row(frames + source * args.width, args.width, args.out + row * args.width);
    }
  });
}

}  // namespace

template <typename T>
void gather_frames(Cpu, const GatherFrames<T>& args) {
  if (args.type == FrameType::kHalf) {
    gather(args, static_cast<const std::uint16_t*>(args.frames));
  } else {
    gather(args, static_cast<const float*>(args.frames));
  }
}

#define VOCA_INSTANTIATE(T) template void gather_frames(Cpu, const GatherFrames<T>&);
VOCA_CPU_TYPES(VOCA_INSTANTIATE)

}  // namespace voca::kernels
