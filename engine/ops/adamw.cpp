#include "kernels/adamw.h"
#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

namespace {

template <typename T, typename G, typename Backend>
void adamw_of(Context& context, Backend backend, AdamWStep& s) {
  const ArenaScope scope(context.arena);
  kernels::AdamW<T, G> args{.elements = s.gradient.elements(),
                            .options = s.options,
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
                            .weights = s.weights.data == s.master.data ? nullptr : s.weights.as<T>()};
  args.scratch = context.arena.scratch("adamw scratch", scratch_bytes(backend, args)).data;
  if (!context.is_dry_run()) kernels::adamw(backend, args);
}

}  // namespace

void adamw(Context& context, AdamWStep s) {
  const DType dtype = s.weights.dtype;
  const DType statistics = statistics_type(dtype);
  expect(context, "adamw", {sizeof(kernels::OptimizerState)}, DType::kU8, {&s.state});
  expect(context, "adamw", {1}, statistics, {&s.norm});
  expect_optional(context, "adamw", s.losses.shape, statistics, {&s.losses});
  expect(context, "adamw", s.weights.shape, statistics, {&s.master, &s.exp_avg, &s.exp_avg_sq});
  const bool wide = s.gradient.dtype != dtype;
  expect(context, "adamw", s.weights.shape, wide ? statistics : dtype, {&s.gradient});
  expect(context, "adamw", s.weights.shape, dtype, {&s.weights});
  dispatch(context, "adamw", dtype, [&]<typename T>(auto backend) {
    wide ? adamw_of<T, kernels::Stat<T>>(context, backend, s) : adamw_of<T, T>(context, backend, s);
  });
}

}  // namespace voca::engine::ops
