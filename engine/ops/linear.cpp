#include "kernels/linear.h"

#include "engine/ops.h"
#include "engine/ops/check.h"

namespace voca::engine::ops {
namespace {

// A tensor with the last extent replaced: what a linear map makes of its input's shape.
Shape with_columns(const Shape& shape, std::int64_t columns) {
  switch (shape.rank()) {
    case 1:
      return {columns};
    case 2:
      return {shape[0], columns};
    case 3:
      return {shape[0], shape[1], columns};
    default:
      return {shape[0], shape[1], shape[2], columns};
  }
}

}  // namespace

void linear(Context& context, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y) {
  const std::int64_t in = columns_of(x);
  const std::int64_t out = columns_of(y);
  expect(context, "linear", x, x.shape, x.dtype);
  expect(context, "linear", weight, {out, in}, x.dtype);
  expect_optional(context, "linear", bias, {out}, x.dtype);
  expect(context, "linear", y, with_columns(x.shape, out), x.dtype);
  by_type("linear", x.dtype, [&]<typename T>() {
    const kernels::LinearForward<T> args{.rows = rows_of(x),
                                         .in_features = in,
                                         .out_features = out,
                                         .x = x.as<T>(),
                                         .weight = weight.as<T>(),
                                         .bias = pointer<T>(bias),
                                         .y = y.as<T>()};
    VOCA_DISPATCH(context, linear_forward, args);
  });
}

void linear_backward(Context& context, const LinearGradient& g) {
  const std::int64_t in = columns_of(g.x);
  const std::int64_t out = columns_of(g.dy);
  const DType dtype = g.x.dtype;
  expect(context, "linear_backward", g.dy, with_columns(g.x.shape, out), dtype);
  expect(context, "linear_backward", g.x, g.x.shape, dtype);
  expect(context, "linear_backward", g.weight, {out, in}, dtype);
  expect_optional(context, "linear_backward", g.dx, g.x.shape, dtype);
  expect(context, "linear_backward", g.dweight, {out, in}, dtype);
  expect_optional(context, "linear_backward", g.dbias, {out}, dtype);
  by_type("linear_backward", dtype, [&]<typename T>() {
    const kernels::LinearBackward<T> args{.rows = rows_of(g.x),
                                          .in_features = in,
                                          .out_features = out,
                                          .dy = g.dy.as<T>(),
                                          .x = g.x.as<T>(),
                                          .weight = g.weight.as<T>(),
                                          .dx = pointer<T>(g.dx),
                                          .accumulate_dx = g.accumulate_dx,
                                          .dweight = g.dweight.as<T>(),
                                          .dbias = pointer<T>(g.dbias)};
    VOCA_DISPATCH(context, linear_backward, args);
  });
}

}  // namespace voca::engine::ops
