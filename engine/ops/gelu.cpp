#include "kernels/gelu.h"
#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void gelu(Context& context, const Tensor& x, const Tensor& bias, const Dropout& dropout, Tensor y) {
  expect(context, "gelu", x.shape, x.dtype, {&x, &y});
  expect_optional(context, "gelu", {columns_of(x)}, x.dtype, {&bias});
  dispatch(context, "gelu", x.dtype, [&]<typename T>(auto backend) {
    const kernels::GeluForward<T> args{.rows = rows_of(x),
                                       .columns = columns_of(x),
                                       .x = x.as<T>(),
                                       .bias = pointer<T>(bias),
                                       .dropout = dropout,
                                       .y = y.as<T>()};
    if (!context.is_dry_run()) kernels::gelu_forward(backend, args);
  });
}

void gelu_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& bias,
                   const Dropout& dropout, Tensor dx, Tensor dbias) {
  const std::int64_t rows = rows_of(x);
  const std::int64_t columns = columns_of(x);
  expect(context, "gelu_backward", x.shape, x.dtype, {&dy, &x, &dx});
  expect_optional(context, "gelu_backward", {columns}, x.dtype, {&bias, &dbias});
  dispatch(context, "gelu_backward", x.dtype, [&]<typename T>(auto backend) {
    const ArenaScope scope(context.arena);
    kernels::GeluBackward<T> args{.rows = rows,
                                  .columns = columns,
                                  .dy = dy.as<T>(),
                                  .x = x.as<T>(),
                                  .bias = pointer<T>(bias),
                                  .dropout = dropout,
                                  .dx = dx.as<T>(),
                                  .dbias = pointer<T>(dbias)};
    args.scratch = context.arena.scratch("gelu scratch", scratch_bytes(backend, args)).data;
    if (!context.is_dry_run()) kernels::gelu_backward(backend, args);
  });
}

}  // namespace voca::engine::ops
