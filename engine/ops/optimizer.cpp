#include "engine/ops/check.h"
#include "engine/ops/ops.h"
#include "kernels/adamw.h"
#include "kernels/elementwise.h"
#include "kernels/gradient_norm.h"

namespace voca::engine::ops {

void fill(Context& context, double value, const Tensor& out) {
  expect(context, "fill", out, out.shape, out.dtype);
  by_type("fill", out.dtype, [&]<typename T>() {
    const auto filler = static_cast<T>(value);
    VOCA_BY_BACKEND(context, "fill", kernels::cpu::fill(out.elements(), filler, out.as<T>()),
                    kernels::cuda::fill(out.elements(), filler, out.as<T>(), context.stream));
  });
}

void weighted_sum(Context& context, double alpha, const Tensor& a, double beta, const Tensor& b,
                  const Tensor& out) {
  expect(context, "weighted_sum", a, out.shape, out.dtype);
  expect_optional(context, "weighted_sum", b, out.shape, out.dtype);
  expect(context, "weighted_sum", out, out.shape, out.dtype);
  by_type("weighted_sum", out.dtype, [&]<typename T>() {
    const kernels::WeightedSum<T> args{.elements = out.elements(),
                                       .alpha = alpha,
                                       .a = a.as<T>(),
                                       .beta = beta,
                                       .b = pointer<T>(b),
                                       .out = out.as<T>()};
    VOCA_DISPATCH(context, weighted_sum, args);
  });
}

void wide_sum(Context& context, const Tensor& from, bool add, const Tensor& sum) {
  expect(context, "wide_sum", from, from.shape, from.dtype);
  expect(context, "wide_sum", sum, from.shape, statistics_type(from.dtype));
  by_type("wide_sum", from.dtype, [&]<typename T>() {
    const kernels::WideSum<T> args{
        .elements = from.elements(), .from = from.as<T>(), .add = add, .sum = sum.as<kernels::Stat<T>>()};
    VOCA_DISPATCH(context, wide_sum, args);
  });
}

void gradient_norm(Context& context, const Tensor& gradient, const Tensor& norm) {
  expect(context, "gradient_norm", gradient, gradient.shape, gradient.dtype);
  expect(context, "gradient_norm", norm, {1}, statistics_type(gradient.dtype));
  by_type("gradient_norm", gradient.dtype, [&]<typename T>() {
    const ArenaScope scope(context.arena);
    const Tensor scratch = context.arena.scratch(
        "gradient norm scratch",
        VOCA_SCRATCH_BYTES(context, "gradient_norm",
                           kernels::cpu::gradient_norm_scratch_bytes(gradient.elements()),
                           kernels::cuda::gradient_norm_scratch_bytes(gradient.elements())));
    const kernels::GradientNorm<T> args{.elements = gradient.elements(),
                                        .gradient = gradient.as<T>(),
                                        .norm = norm.as<kernels::Stat<T>>(),
                                        .scratch = scratch.data};
    VOCA_DISPATCH(context, gradient_norm, args);
  });
}

namespace {

template <typename T, typename G>
void adamw_of(Context& context, const AdamWStep& s) {
  const ArenaScope scope(context.arena);
  const Tensor scratch = context.arena.scratch(
      "adamw scratch", VOCA_SCRATCH_BYTES(context, "adamw", 0, kernels::cuda::adamw_scratch_bytes()));
  const kernels::AdamW<T, G> args{.elements = s.gradient.elements(),
                                  .weight_decay = s.weight_decay,
                                  .max_norm = s.max_norm,
                                  .growth_interval = s.growth_interval,
                                  .state = static_cast<kernels::OptimizerState*>(s.state.data),
                                  .norm = s.norm.as<kernels::Stat<T>>(),
                                  .losses = pointer<kernels::Stat<T>>(s.losses),
                                  .loss_count = s.losses ? s.losses.elements() : 0,
                                  .gradient = s.gradient.as<G>(),
                                  .master = s.master.as<kernels::Stat<T>>(),
                                  .exp_avg = s.exp_avg.as<kernels::Stat<T>>(),
                                  .exp_avg_sq = s.exp_avg_sq.as<kernels::Stat<T>>(),
                                  .weights = s.weights.data == s.master.data ? nullptr : s.weights.as<T>(),
                                  .scratch = scratch.data};
  VOCA_DISPATCH(context, adamw, args);
}

}  // namespace

void adamw(Context& context, const AdamWStep& s) {
  const DType dtype = s.weights.dtype;
  const DType statistics = statistics_type(dtype);
  expect(context, "adamw", s.state, {sizeof(kernels::OptimizerState)}, DType::kU8);
  expect(context, "adamw", s.norm, {1}, statistics);
  expect_optional(context, "adamw", s.losses, s.losses.shape, statistics);
  for (const Tensor* tensor : {&s.master, &s.exp_avg, &s.exp_avg_sq})
    expect(context, "adamw", *tensor, s.weights.shape, statistics);
  const bool wide = s.gradient.dtype != dtype;
  expect(context, "adamw", s.gradient, s.weights.shape, wide ? statistics : dtype);
  expect(context, "adamw", s.weights, s.weights.shape, dtype);
  by_type("adamw", dtype, [&]<typename T>() {
    wide ? adamw_of<T, kernels::Stat<T>>(context, s) : adamw_of<T, T>(context, s);
  });
}

}  // namespace voca::engine::ops
