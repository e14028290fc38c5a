#include "kernels/infonce.h"
#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void infonce(Context& context, InfoNce n) {
  const std::int64_t rows = rows_of(n.zv);
  const std::int64_t columns = rows_of(n.za);
  const std::int64_t width = columns_of(n.zv);
  const DType dtype = n.zv.dtype;
  expect(context, "infonce", {rows, width}, dtype, {&n.zv});
  expect(context, "infonce", {columns, width}, dtype, {&n.za});
  expect(context, "infonce", {rows}, DType::kI32, {&n.row_labels});
  expect(context, "infonce", {columns}, DType::kI32, {&n.column_labels});
  expect(context, "infonce", {1}, statistics_type(dtype), {&n.loss});
  expect_optional(context, "infonce", n.zv.shape, dtype, {&n.dzv});
  expect_optional(context, "infonce", n.za.shape, dtype, {&n.dza});
  expect_optional(context, "infonce", {1}, DType::kF32, {&n.grad.loss_scale});
  VOCA_CHECK(static_cast<bool>(n.dzv) == static_cast<bool>(n.dza));
  VOCA_CHECK(n.diagonal_offset >= 0 && n.diagonal_offset + rows <= columns);
  dispatch(context, "infonce", dtype, [&]<typename T>(auto backend) {
    const ArenaScope scope(context.arena);
    kernels::InfoNce<T> args{.rows = rows,
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
                             .dza = pointer<T>(n.dza)};
    args.scratch = context.arena.scratch("infonce scratch", scratch_bytes(backend, args)).data;
    if (!context.is_dry_run()) kernels::infonce(backend, args);
  });
}

}  // namespace voca::engine::ops
