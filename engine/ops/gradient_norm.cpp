#include "kernels/gradient_norm.h"
#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void gradient_norm(Context& context, const Tensor& gradient, Tensor norm) {
  expect(context, "gradient_norm", gradient.shape, gradient.dtype, {&gradient});
  expect(context, "gradient_norm", {1}, statistics_type(gradient.dtype), {&norm});
  dispatch(context, "gradient_norm", gradient.dtype, [&]<typename T>(auto backend) {
    const ArenaScope scope(context.arena);
    kernels::GradientNorm<T> args{
        .elements = gradient.elements(), .gradient = gradient.as<T>(), .norm = norm.as<kernels::Stat<T>>()};
    args.scratch = context.arena.scratch("gradient norm scratch", scratch_bytes(backend, args)).data;
    if (!context.is_dry_run()) kernels::gradient_norm(backend, args);
  });
}

}  // namespace voca::engine::ops
