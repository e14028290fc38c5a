#include "kernels/l2_normalize.h"
#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void l2_normalize(Context& context, const Tensor& x, Tensor z, Tensor norm) {
  expect(context, "l2_normalize", x.shape, x.dtype, {&x, &z});
  expect(context, "l2_normalize", {rows_of(x)}, statistics_type(x.dtype), {&norm});
  dispatch(context, "l2_normalize", x.dtype, [&]<typename T>(auto backend) {
    const kernels::L2NormalizeForward<T> args{.rows = rows_of(x),
                                              .columns = columns_of(x),
                                              .x = x.as<T>(),
                                              .z = z.as<T>(),
                                              .norm = norm.as<kernels::Stat<T>>()};
    if (!context.is_dry_run()) kernels::l2_normalize_forward(backend, args);
  });
}

void l2_normalize_backward(Context& context, const Tensor& dz, const Tensor& z, const Tensor& norm,
                           Tensor dx) {
  expect(context, "l2_normalize_backward", z.shape, z.dtype, {&dz, &z, &dx});
  expect(context, "l2_normalize_backward", {rows_of(z)}, statistics_type(z.dtype), {&norm});
  dispatch(context, "l2_normalize_backward", z.dtype, [&]<typename T>(auto backend) {
    const kernels::L2NormalizeBackward<T> args{.rows = rows_of(z),
                                               .columns = columns_of(z),
                                               .dz = dz.as<T>(),
                                               .z = z.as<T>(),
                                               .norm = norm.as<kernels::Stat<T>>(),
                                               .dx = dx.as<T>()};
    if (!context.is_dry_run()) kernels::l2_normalize_backward(backend, args);
  });
}

}  // namespace voca::engine::ops
