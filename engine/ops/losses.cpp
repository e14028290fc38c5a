#include "engine/ops/check.h"
#include "engine/ops/ops.h"
#include "kernels/binary_cross_entropy.h"
#include "kernels/infonce.h"
#include "kernels/l2_normalize.h"
#include "kernels/softmax_cross_entropy.h"

namespace voca::engine::ops {

void l2_normalize(Context& context, const Tensor& x, const Tensor& z, const Tensor& norm) {
  expect(context, "l2_normalize", x, x.shape, x.dtype);
  expect(context, "l2_normalize", z, x.shape, x.dtype);
  expect(context, "l2_normalize", norm, {rows_of(x)}, statistics_type(x.dtype));
  by_type("l2_normalize", x.dtype, [&]<typename T>() {
    const kernels::L2NormalizeForward<T> args{.rows = rows_of(x),
                                              .columns = columns_of(x),
                                              .x = x.as<T>(),
                                              .z = z.as<T>(),
                                              .norm = norm.as<kernels::Stat<T>>()};
    VOCA_DISPATCH(context, l2_normalize_forward, args);
  });
}

void l2_normalize_backward(Context& context, const Tensor& dz, const Tensor& z, const Tensor& norm,
                           const Tensor& dx) {
  expect(context, "l2_normalize_backward", dz, z.shape, z.dtype);
  expect(context, "l2_normalize_backward", z, z.shape, z.dtype);
  expect(context, "l2_normalize_backward", norm, {rows_of(z)}, statistics_type(z.dtype));
  expect(context, "l2_normalize_backward", dx, z.shape, z.dtype);
  by_type("l2_normalize_backward", z.dtype, [&]<typename T>() {
    const kernels::L2NormalizeBackward<T> args{.rows = rows_of(z),
                                               .columns = columns_of(z),
                                               .dz = dz.as<T>(),
                                               .z = z.as<T>(),
                                               .norm = norm.as<kernels::Stat<T>>(),
                                               .dx = dx.as<T>()};
    VOCA_DISPATCH(context, l2_normalize_backward, args);
  });
}

void infonce(Context& context, const InfoNce& n) {
  const std::int64_t rows = rows_of(n.zv);
  const std::int64_t columns = rows_of(n.za);
  const std::int64_t width = columns_of(n.zv);
  const DType dtype = n.zv.dtype;
  expect(context, "infonce", n.zv, {rows, width}, dtype);
  expect(context, "infonce", n.za, {columns, width}, dtype);
  expect(context, "infonce", n.row_labels, {rows}, DType::kI32);
  expect(context, "infonce", n.column_labels, {columns}, DType::kI32);
  expect(context, "infonce", n.loss, {1}, statistics_type(dtype));
  expect_optional(context, "infonce", n.dzv, n.zv.shape, dtype);
  expect_optional(context, "infonce", n.dza, n.za.shape, dtype);
  expect_optional(context, "infonce", n.grad.loss_scale, {1}, DType::kF32);
  VOCA_CHECK(static_cast<bool>(n.dzv) == static_cast<bool>(n.dza));
  VOCA_CHECK(n.diagonal_offset >= 0 && n.diagonal_offset + rows <= columns);
  by_type("infonce", dtype, [&]<typename T>() {
    const ArenaScope scope(context.arena);
    const Tensor scratch = context.arena.scratch(
        "infonce scratch",
        VOCA_SCRATCH_BYTES(context, "infonce", kernels::cpu::infonce_scratch_bytes<T>(rows, columns),
                           kernels::cuda::infonce_scratch_bytes(rows, columns)));
    const kernels::InfoNce<T> args{.rows = rows,
                                   .columns = columns,
                                   .width = width,
                                   .diagonal_offset = n.diagonal_offset,
                                   .temperature = n.temperature,
                                   .zv = n.zv.as<T>(),
                                   .za = n.za.as<T>(),
                                   .row_labels = n.row_labels.as<std::int32_t>(),
                                   .column_labels = n.column_labels.as<std::int32_t>(),
                                   .grad = n.grad.factor,
                                   .loss_scale = pointer<float>(n.grad.loss_scale),
                                   .loss = n.loss.as<kernels::Stat<T>>(),
                                   .dzv = pointer<T>(n.dzv),
                                   .dza = pointer<T>(n.dza),
                                   .scratch = scratch.data};
    VOCA_DISPATCH(context, infonce, args);
  });
}

namespace {

void expect_cross_entropy(const Context& context, const char* operation, const CrossEntropy& c,
                          std::int64_t rows) {
  const DType dtype = c.logits.dtype;
  expect(context, operation, c.logits, c.logits.shape, dtype);
  expect(context, operation, c.labels, {rows}, DType::kI32);
  expect(context, operation, c.loss, {1}, statistics_type(dtype));
  expect_optional(context, operation, c.row_losses, {rows}, statistics_type(dtype));
  expect_optional(context, operation, c.dlogits, c.logits.shape, dtype);
  expect_optional(context, operation, c.grad.loss_scale, {1}, DType::kF32);
}

}  // namespace

void binary_cross_entropy(Context& context, const CrossEntropy& c) {
  const std::int64_t rows = c.logits.elements();
  expect_cross_entropy(context, "binary_cross_entropy", c, rows);
  by_type("binary_cross_entropy", c.logits.dtype, [&]<typename T>() {
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
    VOCA_DISPATCH(context, binary_cross_entropy, args);
  });
}

void softmax_cross_entropy(Context& context, const CrossEntropy& c) {
  VOCA_CHECK(c.logits.shape.rank() == 2);
  const std::int64_t rows = c.logits.shape[0];
  expect_cross_entropy(context, "softmax_cross_entropy", c, rows);
  by_type("softmax_cross_entropy", c.logits.dtype, [&]<typename T>() {
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
    VOCA_DISPATCH(context, softmax_cross_entropy, args);
  });
}

}  // namespace voca::engine::ops
