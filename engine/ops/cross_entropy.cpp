#include "engine/ops/check.h"
#include "engine/ops/ops.h"
#include "kernels/binary_cross_entropy.h"
#include "kernels/softmax_cross_entropy.h"

namespace voca::engine::ops {
namespace {

/// Checks the arguments that the cross-entropies share, for `rows` logits or rows of logits.
void expect_cross_entropy(const Context& context, const char* operation, const CrossEntropy& c,
                          std::int64_t rows) {
  const DType dtype = c.logits.dtype;
  expect(context, operation, c.logits.shape, dtype, {&c.logits});
  expect(context, operation, {rows}, DType::kI32, {&c.labels});
  expect(context, operation, {1}, statistics_type(dtype), {&c.loss});
  expect_optional(context, operation, {rows}, statistics_type(dtype), {&c.row_losses});
  expect_optional(context, operation, c.logits.shape, dtype, {&c.dlogits});
  expect_optional(context, operation, {1}, DType::kF32, {&c.grad.loss_scale});
}

}  // namespace

void binary_cross_entropy(Context& context, CrossEntropy c) {
  const std::int64_t rows = c.logits.elements();
  expect_cross_entropy(context, "binary_cross_entropy", c, rows);
  dispatch(context, "binary_cross_entropy", c.logits.dtype, [&]<typename T>(auto backend) {
    const kernels::BinaryCrossEntropy<T> args{.rows = rows,
                                              .smoothing = c.smoothing,
                                              .pos_weight = c.pos_weight,
                                              .grad = c.grad.factor,
                                              .loss_scale = pointer<float>(c.grad.loss_scale),
                                              .logits = c.logits.as<T>(),
                                              .labels = c.labels.as<std::int32_t>(),
                                              .loss = c.loss.as<kernels::Stat<T>>(),
                                              .row_losses = pointer<kernels::Stat<T>>(c.row_losses),
                                              .dlogits = pointer<T>(c.dlogits)};
    if (!context.is_dry_run()) kernels::binary_cross_entropy(backend, args);
  });
}

void softmax_cross_entropy(Context& context, CrossEntropy c) {
  VOCA_CHECK(c.logits.shape.rank() == 2);
  const std::int64_t rows = c.logits.shape[0];
  expect_cross_entropy(context, "softmax_cross_entropy", c, rows);
  dispatch(context, "softmax_cross_entropy", c.logits.dtype, [&]<typename T>(auto backend) {
    const kernels::SoftmaxCrossEntropy<T> args{.rows = rows,
                                               .classes = c.logits.shape[1],
                                               .smoothing = c.smoothing,
                                               .grad = c.grad.factor,
                                               .loss_scale = pointer<float>(c.grad.loss_scale),
                                               .logits = c.logits.as<T>(),
                                               .labels = c.labels.as<std::int32_t>(),
                                               .loss = c.loss.as<kernels::Stat<T>>(),
                                               .row_losses = pointer<kernels::Stat<T>>(c.row_losses),
                                               .dlogits = pointer<T>(c.dlogits)};
    if (!context.is_dry_run()) kernels::softmax_cross_entropy(backend, args);
  });
}

}  // namespace voca::engine::ops
