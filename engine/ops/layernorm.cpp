#include "kernels/layernorm.h"

#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void layernorm(Context& context, Layernorm l) {
  const DType dtype = l.x.dtype;
  const DType statistics = statistics_type(dtype);
  const std::int64_t rows = rows_of(l.x);
  const std::int64_t columns = columns_of(l.x);
  expect(context, "layernorm", l.x, l.x.shape, dtype);
  expect_optional(context, "layernorm", l.bias, {columns}, dtype);
  expect_optional(context, "layernorm", l.residual, l.x.shape, dtype);
  expect(context, "layernorm", l.gamma, {columns}, dtype);
  expect(context, "layernorm", l.beta, {columns}, dtype);
  expect_optional(context, "layernorm", l.z, l.x.shape, dtype);
  expect_optional(context, "layernorm", l.mean, {rows}, statistics);
  expect_optional(context, "layernorm", l.rstd, {rows}, statistics);
  expect(context, "layernorm", l.y, l.x.shape, dtype);
  dispatch(context, "layernorm", dtype, [&]<typename T>(auto backend) {
    const kernels::LayernormForward<T> args{.rows = rows,
                                            .columns = columns,
                                            .x = l.x.as<T>(),
                                            .bias = pointer<T>(l.bias),
                                            .residual = pointer<T>(l.residual),
                                            .gamma = l.gamma.as<T>(),
                                            .beta = l.beta.as<T>(),
                                            .input_dropout = l.input_dropout,
                                            .output_dropout = l.output_dropout,
                                            .z = pointer<T>(l.z),
                                            .mean = pointer<kernels::Stat<T>>(l.mean),
                                            .rstd = pointer<kernels::Stat<T>>(l.rstd),
                                            .y = l.y.as<T>()};
    if (!context.is_dry_run()) kernels::layernorm_forward(backend, args);
  });
}

void layernorm_backward(Context& context, LayernormGradient g) {
  const DType dtype = g.z.dtype;
  const DType statistics = statistics_type(dtype);
  const std::int64_t rows = rows_of(g.z);
  const std::int64_t columns = columns_of(g.z);
  expect(context, "layernorm_backward", g.dy, g.z.shape, dtype);
  expect(context, "layernorm_backward", g.z, g.z.shape, dtype);
  expect(context, "layernorm_backward", g.mean, {rows}, statistics);
  expect(context, "layernorm_backward", g.rstd, {rows}, statistics);
  expect(context, "layernorm_backward", g.gamma, {columns}, dtype);
  expect(context, "layernorm_backward", g.dx, g.z.shape, dtype);
  expect_optional(context, "layernorm_backward", g.dresidual, g.z.shape, dtype);
  expect(context, "layernorm_backward", g.dgamma, {columns}, dtype);
  expect(context, "layernorm_backward", g.dbeta, {columns}, dtype);
  expect_optional(context, "layernorm_backward", g.dbias, {columns}, dtype);
  dispatch(context, "layernorm_backward", dtype, [&]<typename T>(auto backend) {
    const ArenaScope scope(context.arena);
    kernels::LayernormBackward<T> args{.rows = rows,
                                       .columns = columns,
                                       .dy = g.dy.as<T>(),
                                       .z = g.z.as<T>(),
                                       .mean = g.mean.as<kernels::Stat<T>>(),
                                       .rstd = g.rstd.as<kernels::Stat<T>>(),
                                       .gamma = g.gamma.as<T>(),
                                       .input_dropout = g.input_dropout,
                                       .output_dropout = g.output_dropout,
                                       .dx = g.dx.as<T>(),
                                       .dresidual = pointer<T>(g.dresidual),
                                       .accumulate_dresidual = g.accumulate_dresidual,
                                       .dgamma = g.dgamma.as<T>(),
                                       .dbeta = g.dbeta.as<T>(),
                                       .dbias = pointer<T>(g.dbias)};
    args.scratch = context.arena.scratch("layernorm scratch", scratch_bytes(backend, args)).data;
    if (!context.is_dry_run()) kernels::layernorm_backward(backend, args);
  });
}

}  // namespace voca::engine::ops
