#include "kernels/layernorm.h"

#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void layernorm(Context& context, const Layernorm& l) {
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
  by_type("layernorm", dtype, [&]<typename T>() {
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
    VOCA_DISPATCH(context, layernorm_forward, args);
  });
}

void layernorm_backward(Context& context, const LayernormGradient& g) {
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
  by_type("layernorm_backward", dtype, [&]<typename T>() {
    const ArenaScope scope(context.arena);
    const Tensor scratch = context.arena.scratch(
        "layernorm scratch",
        VOCA_SCRATCH_BYTES(context, "layernorm_backward",
                           kernels::cpu::layernorm_backward_scratch_bytes<T>(rows, columns),
                           kernels::cuda::layernorm_backward_scratch_bytes(rows, columns)));
    const kernels::LayernormBackward<T> args{.rows = rows,
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
                                             .dbias = pointer<T>(g.dbias),
                                             .scratch = scratch.data};
    VOCA_DISPATCH(context, layernorm_backward, args);
  });
}

}  // namespace voca::engine::ops
