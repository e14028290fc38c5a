#pragma once

#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

/// Checks the arguments that the cross-entropies share, for `rows` logits or rows of logits.
inline void expect_cross_entropy(const Context& context, const char* operation, const CrossEntropy& c,
                                 std::int64_t rows) {
  const DType dtype = c.logits.dtype;
  expect(context, operation, c.logits, c.logits.shape, dtype);
  expect(context, operation, c.labels, {rows}, DType::kI32);
  expect(context, operation, c.loss, {1}, statistics_type(dtype));
  expect_optional(context, operation, c.row_losses, {rows}, statistics_type(dtype));
  expect_optional(context, operation, c.dlogits, c.logits.shape, dtype);
  expect_optional(context, operation, c.grad.loss_scale, {1}, DType::kF32);
}

}  // namespace voca::engine::ops
