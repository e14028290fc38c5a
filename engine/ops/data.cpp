#include "engine/ops/check.h"
#include "engine/ops/ops.h"
#include "kernels/elementwise.h"
#include "kernels/gather_frames.h"

namespace voca::engine::ops {

void cast(Context& context, const Tensor& from, const Tensor& to) {
  expect(context, "cast", from, to.shape, DType::kF32);
  expect(context, "cast", to, to.shape, to.dtype);
  by_type("cast", to.dtype, [&]<typename T>() {
    VOCA_BY_BACKEND(context, "cast", kernels::cpu::cast(from.elements(), from.as<float>(), to.as<T>()),
                    kernels::cuda::cast(from.elements(), from.as<float>(), to.as<T>(), context.stream));
  });
}

void gather_frames(Context& context, const Tensor& frames, const Tensor& windows, const Tensor& out) {
  VOCA_CHECK(frames.dtype == DType::kF16 || frames.dtype == DType::kF32);
  const std::int64_t batch = out.shape[0];
  expect(context, "gather_frames", frames, {rows_of(frames), out.shape[2]}, frames.dtype);
  expect(context, "gather_frames", windows, {batch, static_cast<std::int64_t>(sizeof(kernels::FrameWindow))},
         DType::kU8);
  expect(context, "gather_frames", out, out.shape, out.dtype);
  by_type("gather_frames", out.dtype, [&]<typename T>() {
    const kernels::GatherFrames<T> args{
        .batch = batch,
        .length = out.shape[1],
        .width = out.shape[2],
        .type = frames.dtype == DType::kF16 ? kernels::FrameType::kHalf : kernels::FrameType::kFloat,
        .frames = frames.data,
        .windows = static_cast<const kernels::FrameWindow*>(windows.data),
        .out = out.as<T>()};
    VOCA_DISPATCH(context, gather_frames, args);
  });
}

}  // namespace voca::engine::ops
