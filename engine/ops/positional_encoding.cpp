#include "kernels/positional_encoding.h"
#include "engine/ops/check.h"
#include "engine/ops/ops.h"

namespace voca::engine::ops {

void positional_encoding(Context& context, const Tensor& x, const Tensor& encoding, Tensor y) {
  VOCA_CHECK(x.shape.rank() == 3);
  expect(context, "positional_encoding", x.shape, x.dtype, {&x, &y});
  expect(context, "positional_encoding", {x.shape[1], x.shape[2]}, x.dtype, {&encoding});
  dispatch(context, "positional_encoding", x.dtype, [&]<typename T>(auto backend) {
    const kernels::PositionalEncodingForward<T> args{.batch = x.shape[0],
                                                     .length = x.shape[1],
                                                     .columns = x.shape[2],
                                                     .x = x.as<T>(),
                                                     .encoding = encoding.as<T>(),
                                                     .y = y.as<T>()};
    if (!context.is_dry_run()) kernels::positional_encoding_forward(backend, args);
  });
}

void positional_encoding_backward(Context& context, const Tensor& dy, Tensor dencoding) {
  VOCA_CHECK(dy.shape.rank() == 3);
  expect(context, "positional_encoding_backward", dy.shape, dy.dtype, {&dy});
  expect(context, "positional_encoding_backward", {dy.shape[1], dy.shape[2]}, dy.dtype, {&dencoding});
  dispatch(context, "positional_encoding_backward", dy.dtype, [&]<typename T>(auto backend) {
    const kernels::PositionalEncodingBackward<T> args{.batch = dy.shape[0],
                                                      .length = dy.shape[1],
                                                      .columns = dy.shape[2],
                                                      .dy = dy.as<T>(),
                                                      .dencoding = dencoding.as<T>()};
    if (!context.is_dry_run()) kernels::positional_encoding_backward(backend, args);
  });
}

void sinusoidal_encoding(Context& context, Tensor encoding) {
  VOCA_CHECK(encoding.shape.rank() == 2);
  expect(context, "sinusoidal_encoding", encoding.shape, encoding.dtype, {&encoding});
  dispatch(context, "sinusoidal_encoding", encoding.dtype, [&]<typename T>(auto backend) {
    if (context.is_dry_run()) return;
    kernels::sinusoidal_encoding(backend, encoding.shape[0], encoding.shape[1], encoding.as<T>());
  });
}

}  // namespace voca::engine::ops
