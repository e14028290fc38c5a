#include "kernels/elementwise.h"
#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void cast(Context& context, const Tensor& from, Tensor to) {
  expect(context, "cast", to.shape, DType::kF32, {&from});
  expect(context, "cast", to.shape, to.dtype, {&to});
  dispatch(context, "cast", to.dtype, [&]<typename T>(auto backend) {
    if (!context.is_dry_run()) kernels::cast(backend, from.elements(), from.as<float>(), to.as<T>());
  });
}

void fill(Context& context, double value, Tensor out) {
  expect(context, "fill", out.shape, out.dtype, {&out});
  dispatch(context, "fill", out.dtype, [&]<typename T>(auto backend) {
    if (!context.is_dry_run()) kernels::fill(backend, out.elements(), static_cast<T>(value), out.as<T>());
  });
}

void weighted_sum(Context& context, double alpha, const Tensor& a, double beta, const Tensor& b, Tensor out) {
  expect(context, "weighted_sum", out.shape, out.dtype, {&a, &out});
  expect_optional(context, "weighted_sum", out.shape, out.dtype, {&b});
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
  expect(context, "wide_sum", from.shape, from.dtype, {&from});
  expect(context, "wide_sum", from.shape, statistics_type(from.dtype), {&sum});
  dispatch(context, "wide_sum", from.dtype, [&]<typename T>(auto backend) {
    const kernels::WideSum<T> args{
        .elements = from.elements(), .from = from.as<T>(), .add = add, .sum = sum.as<kernels::Stat<T>>()};
    if (!context.is_dry_run()) kernels::wide_sum(backend, args);
  });
}

}  // namespace voca::engine::ops
