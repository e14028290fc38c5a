#include "engine/ops/check.h"
#include "engine/ops/ops.h"
#include "kernels/gelu.h"
#include "kernels/pooling.h"
#include "kernels/positional_encoding.h"

namespace voca::engine::ops {

void gelu(Context& context, const Tensor& x, const Tensor& bias, const Dropout& dropout, const Tensor& y) {
  expect(context, "gelu", x, x.shape, x.dtype);
  expect_optional(context, "gelu", bias, {columns_of(x)}, x.dtype);
  expect(context, "gelu", y, x.shape, x.dtype);
  by_type("gelu", x.dtype, [&]<typename T>() {
    const kernels::GeluForward<T> args{.rows = rows_of(x),
                                       .columns = columns_of(x),
                                       .x = x.as<T>(),
                                       .bias = pointer<T>(bias),
                                       .dropout = dropout,
                                       .y = y.as<T>()};
    VOCA_DISPATCH(context, gelu_forward, args);
  });
}

void gelu_backward(Context& context, const Tensor& dy, const Tensor& x, const Tensor& bias,
                   const Dropout& dropout, const Tensor& dx, const Tensor& dbias) {
  const std::int64_t rows = rows_of(x);
  const std::int64_t columns = columns_of(x);
  expect(context, "gelu_backward", dy, x.shape, x.dtype);
  expect(context, "gelu_backward", x, x.shape, x.dtype);
  expect_optional(context, "gelu_backward", bias, {columns}, x.dtype);
  expect(context, "gelu_backward", dx, x.shape, x.dtype);
  expect_optional(context, "gelu_backward", dbias, {columns}, x.dtype);
  by_type("gelu_backward", x.dtype, [&]<typename T>() {
    const ArenaScope scope(context.arena);
    const Tensor scratch = context.arena.scratch(
        "gelu scratch", VOCA_SCRATCH_BYTES(context, "gelu_backward",
                                           kernels::cpu::gelu_backward_scratch_bytes<T>(rows, columns),
                                           kernels::cuda::gelu_backward_scratch_bytes(rows, columns)));
    const kernels::GeluBackward<T> args{.rows = rows,
                                        .columns = columns,
                                        .dy = dy.as<T>(),
                                        .x = x.as<T>(),
                                        .bias = pointer<T>(bias),
                                        .dropout = dropout,
                                        .dx = dx.as<T>(),
                                        .dbias = pointer<T>(dbias),
                                        .scratch = scratch.data};
    VOCA_DISPATCH(context, gelu_backward, args);
  });
}

void pooling(Context& context, const Tensor& x, const Tensor& y, const Tensor& argmax) {
  VOCA_CHECK(x.shape.rank() == 3);
  const Shape pooled{x.shape[0], x.shape[2]};
  expect(context, "pooling", x, x.shape, x.dtype);
  expect(context, "pooling", y, pooled, x.dtype);
  expect_optional(context, "pooling", argmax, pooled, DType::kI32);
  by_type("pooling", x.dtype, [&]<typename T>() {
    const kernels::PoolingForward<T> args{.batch = x.shape[0],
                                          .length = x.shape[1],
                                          .columns = x.shape[2],
                                          .x = x.as<T>(),
                                          .y = y.as<T>(),
                                          .argmax = pointer<std::int32_t>(argmax)};
    VOCA_DISPATCH(context, pooling_forward, args);
  });
}

void pooling_backward(Context& context, const Tensor& dy, const Tensor& argmax, const Tensor& dx,
                      bool accumulate_dx) {
  VOCA_CHECK(dx.shape.rank() == 3);
  const Shape pooled{dx.shape[0], dx.shape[2]};
  expect(context, "pooling_backward", dy, pooled, dx.dtype);
  expect_optional(context, "pooling_backward", argmax, pooled, DType::kI32);
  expect(context, "pooling_backward", dx, dx.shape, dx.dtype);
  by_type("pooling_backward", dx.dtype, [&]<typename T>() {
    const kernels::PoolingBackward<T> args{.batch = dx.shape[0],
                                           .length = dx.shape[1],
                                           .columns = dx.shape[2],
                                           .dy = dy.as<T>(),
                                           .argmax = pointer<std::int32_t>(argmax),
                                           .dx = dx.as<T>(),
                                           .accumulate_dx = accumulate_dx};
    VOCA_DISPATCH(context, pooling_backward, args);
  });
}

void positional_encoding(Context& context, const Tensor& x, const Tensor& encoding, const Tensor& y) {
  VOCA_CHECK(x.shape.rank() == 3);
  expect(context, "positional_encoding", x, x.shape, x.dtype);
  expect(context, "positional_encoding", encoding, {x.shape[1], x.shape[2]}, x.dtype);
  expect(context, "positional_encoding", y, x.shape, x.dtype);
  by_type("positional_encoding", x.dtype, [&]<typename T>() {
    const kernels::PositionalEncodingForward<T> args{.batch = x.shape[0],
                                                     .length = x.shape[1],
                                                     .columns = x.shape[2],
                                                     .x = x.as<T>(),
                                                     .encoding = encoding.as<T>(),
                                                     .y = y.as<T>()};
    VOCA_DISPATCH(context, positional_encoding_forward, args);
  });
}

void positional_encoding_backward(Context& context, const Tensor& dy, const Tensor& dencoding) {
  VOCA_CHECK(dy.shape.rank() == 3);
  expect(context, "positional_encoding_backward", dy, dy.shape, dy.dtype);
  expect(context, "positional_encoding_backward", dencoding, {dy.shape[1], dy.shape[2]}, dy.dtype);
  by_type("positional_encoding_backward", dy.dtype, [&]<typename T>() {
    const kernels::PositionalEncodingBackward<T> args{.batch = dy.shape[0],
                                                      .length = dy.shape[1],
                                                      .columns = dy.shape[2],
                                                      .dy = dy.as<T>(),
                                                      .dencoding = dencoding.as<T>()};
    VOCA_DISPATCH(context, positional_encoding_backward, args);
  });
}

void sinusoidal_encoding(Context& context, const Tensor& encoding) {
  VOCA_CHECK(encoding.shape.rank() == 2);
  expect(context, "sinusoidal_encoding", encoding, encoding.shape, encoding.dtype);
  by_type("sinusoidal_encoding", encoding.dtype, [&]<typename T>() {
    const std::int64_t length = encoding.shape[0];
    const std::int64_t columns = encoding.shape[1];
    T* const out = encoding.as<T>();
    VOCA_BY_BACKEND(context, "sinusoidal_encoding", kernels::cpu::sinusoidal_encoding(length, columns, out),
                    kernels::cuda::sinusoidal_encoding(length, columns, out, context.stream));
  });
}

}  // namespace voca::engine::ops
