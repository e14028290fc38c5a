#include "kernels/linear.h"

#include "engine/ops/check.h"
#include "engine/ops/ops.h"
#include "kernels/bias_gradient.h"

namespace voca::engine::ops {
namespace {

// The shape of a linear map's output: `shape` with its last extent replaced.
Shape with_columns(const Shape& shape, std::int64_t columns) {
  switch (shape.rank()) {
    case 1:
      return {columns};
    case 2:
      return {shape[0], columns};
    case 3:
      return {shape[0], shape[1], columns};
    default:
      return {shape[0], shape[1], shape[2], columns};
  }
}

using kernels::Transpose;

// On a GPU the library computes the GEMM and adds the bias. Operands may be row slices of larger arrays, so
// they start at multiples of the row size; a slice of the bias starts at a multiple of its length.
void linear_on_gpu(const Context& context, const Tensor& x, const Tensor& weight, const Tensor& bias,
                   const Tensor& y) {
  const std::int64_t in = columns_of(x);
  const std::int64_t out = columns_of(y);
  multiply(context, {.dtype = x.dtype,
                     .transpose_b = Transpose::kYes,
                     .m = rows_of(x),
                     .n = out,
                     .k = in,
                     .a = x.data,
                     .lda = in,
                     .b = weight.data,
                     .ldb = in,
                     .add_bias = static_cast<bool>(bias),
                     .bias = bias.data,
                     .c = y.data,
                     .ldc = out,
                     .alignment = alignment_of(in | out, x.dtype)});
}

void bias_gradient(Context& context, const Tensor& dy, const Tensor& dbias) {
  by_type("bias_gradient", dy.dtype, [&]<typename T>() {
    const ArenaScope scope(context.arena);
    const std::int64_t rows = rows_of(dy);
    const std::int64_t columns = columns_of(dy);
    const Tensor scratch =
        context.arena.scratch("bias gradient scratch",
                              VOCA_SCRATCH_BYTES(context, "bias_gradient", 0,
                                                 kernels::cuda::bias_gradient_scratch_bytes(rows, columns)));
    const kernels::BiasGradient<T> args{
        .rows = rows, .columns = columns, .dy = dy.as<T>(), .dbias = dbias.as<T>(), .scratch = scratch.data};
    VOCA_DISPATCH(context, bias_gradient, args);
  });
}

void linear_backward_on_gpu(Context& context, const LinearGradient& g) {
  const std::int64_t rows = rows_of(g.x);
  const std::int64_t in = columns_of(g.x);
  const std::int64_t out = columns_of(g.dy);
  const int alignment = alignment_of(in | out, g.x.dtype);
  multiply(context, {.dtype = g.x.dtype,
                     .transpose_a = Transpose::kYes,
                     .m = out,
                     .n = in,
                     .k = rows,
                     .a = g.dy.data,
                     .lda = out,
                     .b = g.x.data,
                     .ldb = in,
                     .accumulate = true,
                     .c = g.dweight.data,
                     .ldc = in,
                     .alignment = alignment});
  if (g.dx) {
    multiply(context, {.dtype = g.x.dtype,
                       .m = rows,
                       .n = in,
                       .k = out,
                       .a = g.dy.data,
                       .lda = out,
                       .b = g.weight.data,
                       .ldb = in,
                       .accumulate = g.accumulate_dx,
                       .c = g.dx.data,
                       .ldc = in,
                       .alignment = alignment});
  }
  if (g.dbias) bias_gradient(context, g.dy, g.dbias);
}

}  // namespace

void linear(Context& context, const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y) {
  const std::int64_t in = columns_of(x);
  const std::int64_t out = columns_of(y);
  expect(context, "linear", x, x.shape, x.dtype);
  expect(context, "linear", weight, {out, in}, x.dtype);
  expect_optional(context, "linear", bias, {out}, x.dtype);
  expect(context, "linear", y, with_columns(x.shape, out), x.dtype);
  if (context.backend() == DeviceKind::kCuda) return linear_on_gpu(context, x, weight, bias, y);
  by_cpu_type("linear", x.dtype, [&]<typename T>() {
    const kernels::LinearForward<T> args{.rows = rows_of(x),
                                         .in_features = in,
                                         .out_features = out,
                                         .x = x.as<T>(),
                                         .weight = weight.as<T>(),
                                         .bias = pointer<T>(bias),
                                         .y = y.as<T>()};
    if (context.device() == DeviceKind::kCpu) kernels::cpu::linear_forward(args);
  });
}

void linear_backward(Context& context, const LinearGradient& g) {
  const std::int64_t in = columns_of(g.x);
  const std::int64_t out = columns_of(g.dy);
  const DType dtype = g.x.dtype;
  expect(context, "linear_backward", g.dy, with_columns(g.x.shape, out), dtype);
  expect(context, "linear_backward", g.x, g.x.shape, dtype);
  expect(context, "linear_backward", g.weight, {out, in}, dtype);
  expect_optional(context, "linear_backward", g.dx, g.x.shape, dtype);
  expect(context, "linear_backward", g.dweight, {out, in}, dtype);
  expect_optional(context, "linear_backward", g.dbias, {out}, dtype);
  if (context.backend() == DeviceKind::kCuda) return linear_backward_on_gpu(context, g);
  by_cpu_type("linear_backward", dtype, [&]<typename T>() {
    const kernels::LinearBackward<T> args{.rows = rows_of(g.x),
                                          .in_features = in,
                                          .out_features = out,
                                          .dy = g.dy.as<T>(),
                                          .x = g.x.as<T>(),
                                          .weight = g.weight.as<T>(),
                                          .dx = pointer<T>(g.dx),
                                          .accumulate_dx = g.accumulate_dx,
                                          .dweight = g.dweight.as<T>(),
                                          .dbias = pointer<T>(g.dbias)};
    if (context.device() == DeviceKind::kCpu) kernels::cpu::linear_backward(args);
  });
}

}  // namespace voca::engine::ops
