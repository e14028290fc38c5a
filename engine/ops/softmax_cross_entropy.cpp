#include "kernels/softmax_cross_entropy.h"
#include "engine/ops/cross_entropy_check.h"

namespace voca::engine::ops {

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
