#include "kernels/binary_cross_entropy.h"
#include "engine/ops/cross_entropy_check.h"

namespace voca::engine::ops {

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

}  // namespace voca::engine::ops
