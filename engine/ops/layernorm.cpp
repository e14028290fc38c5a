#include "kernels/layernorm.h"

#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void layernorm(Context& context, Layernorm l) {
  const DType dtype = l.x.dtype;
  const DType statistics = statistics_type(dtype);
  const std::int64_t rows = rows_of(l.x);
  const std::int64_t columns = columns_of(l.x);
  expect(context, "layernorm", l.x.shape, dtype, {&l.x, &l.y});
  expect_optional(context, "layernorm", {columns}, dtype, {&l.bias});
  expect_optional(context, "layernorm", l.x.shape, dtype, {&l.residual, &l.z});
  expect(context, "layernorm", {columns}, dtype, {&l.gamma, &l.beta});
  expect_optional(context, "layernorm", {rows}, statistics, {&l.mean, &l.rstd});
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
  expect(context, "layernorm_backward", g.z.shape, dtype, {&g.dy, &g.z, &g.dx});
  expect(context, "layernorm_backward", {rows}, statistics, {&g.mean, &g.rstd});
  expect(context, "layernorm_backward", {columns}, dtype, {&g.gamma, &g.dgamma, &g.dbeta});
  expect_optional(context, "layernorm_backward", g.z.shape, dtype, {&g.dresidual});
  expect_optional(context, "layernorm_backward", {columns}, dtype, {&g.dbias});
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
