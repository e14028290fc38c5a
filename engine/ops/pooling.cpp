#include "kernels/pooling.h"
#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void pooling(Context& context, const Tensor& x, Tensor y, Tensor argmax) {
  VOCA_CHECK(x.shape.rank() == 3);
  const Shape pooled{x.shape[0], x.shape[2]};
  expect(context, "pooling", x.shape, x.dtype, {&x});
  expect(context, "pooling", pooled, x.dtype, {&y});
  expect_optional(context, "pooling", pooled, DType::kI32, {&argmax});
  dispatch(context, "pooling", x.dtype, [&]<typename T>(auto backend) {
    const kernels::PoolingForward<T> args{.batch = x.shape[0],
                                          .length = x.shape[1],
                                          .columns = x.shape[2],
                                          .x = x.as<T>(),
                                          .y = y.as<T>(),
                                          .argmax = pointer<std::int32_t>(argmax)};
    if (!context.is_dry_run()) kernels::pooling_forward(backend, args);
  });
}

void pooling_backward(Context& context, const Tensor& dy, const Tensor& argmax, Tensor dx,
                      bool accumulate_dx) {
  VOCA_CHECK(dx.shape.rank() == 3);
  const Shape pooled{dx.shape[0], dx.shape[2]};
  expect(context, "pooling_backward", pooled, dx.dtype, {&dy});
  expect_optional(context, "pooling_backward", pooled, DType::kI32, {&argmax});
  expect(context, "pooling_backward", dx.shape, dx.dtype, {&dx});
  dispatch(context, "pooling_backward", dx.dtype, [&]<typename T>(auto backend) {
    const kernels::PoolingBackward<T> args{.batch = dx.shape[0],
                                           .length = dx.shape[1],
                                           .columns = dx.shape[2],
                                           .dy = dy.as<T>(),
                                           .argmax = pointer<std::int32_t>(argmax),
                                           .dx = dx.as<T>(),
                                           .accumulate_dx = accumulate_dx};
    if (!context.is_dry_run()) kernels::pooling_backward(backend, args);
  });
}

}  // namespace voca::engine::ops
