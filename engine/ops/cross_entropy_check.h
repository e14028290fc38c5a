#pragma once

#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

/// Checks the arguments that the cross-entropies share, for `rows` logits or rows of logits.
inline void expect_cross_entropy(const Context& context, const char* operation, const CrossEntropy& c,
                                 std::int64_t rows) {
  const DType dtype = c.logits.dtype;
  expect(context, operation, c.logits.shape, dtype, {&c.logits});
  expect(context, operation, {rows}, DType::kI32, {&c.labels});
  expect(context, operation, {1}, statistics_type(dtype), {&c.loss});
  expect_optional(context, operation, {rows}, statistics_type(dtype), {&c.row_losses});
  expect_optional(context, operation, c.logits.shape, dtype, {&c.dlogits});
  expect_optional(context, operation, {1}, DType::kF32, {&c.grad.loss_scale});
}

}  // namespace voca::engine::ops
