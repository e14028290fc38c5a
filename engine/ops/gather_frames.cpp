#include "kernels/gather_frames.h"
#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void gather_frames(Context& context, const Tensor& frames, const Tensor& windows, Tensor out) {
  VOCA_CHECK(frames.dtype == DType::kF16 || frames.dtype == DType::kF32);
  const std::int64_t batch = out.shape[0];
  expect(context, "gather_frames", {rows_of(frames), out.shape[2]}, frames.dtype, {&frames});
  expect(context, "gather_frames", {batch, static_cast<std::int64_t>(sizeof(kernels::FrameWindow))},
         DType::kU8, {&windows});
  expect(context, "gather_frames", out.shape, out.dtype, {&out});
  dispatch(context, "gather_frames", out.dtype, [&]<typename T>(auto backend) {
    const kernels::GatherFrames<T> args{
        .batch = batch,
        .length = out.shape[1],
        .width = out.shape[2],
        .type = frames.dtype == DType::kF16 ? kernels::FrameType::kHalf : kernels::FrameType::kFloat,
        .frames = frames.data,
        .windows = static_cast<const kernels::FrameWindow*>(windows.data),
        .out = out.as<T>()};
    if (!context.is_dry_run()) kernels::gather_frames(backend, args);
  });
}

}  // namespace voca::engine::ops
