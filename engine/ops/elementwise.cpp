#include "kernels/elementwise.h"
#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void cast(Context& context, const Tensor& from, Tensor to) {
  expect(context, "cast", from, to.shape, DType::kF32);
  expect(context, "cast", to, to.shape, to.dtype);
  dispatch(context, "cast", to.dtype, [&]<typename T>(auto backend) {
    if (!context.is_dry_run()) kernels::cast(backend, from.elements(), from.as<float>(), to.as<T>());
  });
}

void fill(Context& context, double value, Tensor out) {
  expect(context, "fill", out, out.shape, out.dtype);
  dispatch(context, "fill", out.dtype, [&]<typename T>(auto backend) {
    if (!context.is_dry_run()) kernels::fill(backend, out.elements(), static_cast<T>(value), out.as<T>());
  });
}

void weighted_sum(Context& context, double alpha, const Tensor& a, double beta, const Tensor& b, Tensor out) {
  expect(context, "weighted_sum", a, out.shape, out.dtype);
  expect_optional(context, "weighted_sum", b, out.shape, out.dtype);
  expect(context, "weighted_sum", out, out.shape, out.dtype);
  dispatch(context, "weighted_sum", out.dtype, [&]<typename T>(auto backend) {
    const kernels::WeightedSum<T> args{.elements = out.elements(),
                                       .alpha = alpha,
                                       .a = a.as<T>(),
                                       .beta = beta,
                                       .b = pointer<T>(b),
                                       .out = out.as<T>()};
    if (!context.is_dry_run()) kernels::weighted_sum(backend, args);
  });
}

void wide_sum(Context& context, const Tensor& from, bool add, Tensor sum) {
  expect(context, "wide_sum", from, from.shape, from.dtype);
  expect(context, "wide_sum", sum, from.shape, statistics_type(from.dtype));
  dispatch(context, "wide_sum", from.dtype, [&]<typename T>(auto backend) {
    const kernels::WideSum<T> args{
        .elements = from.elements(), .from = from.as<T>(), .add = add, .sum = sum.as<kernels::Stat<T>>()};
    if (!context.is_dry_run()) kernels::wide_sum(backend, args);
  });
}

}  // namespace voca::engine::ops
