#include "engine/ops/gemm.h"
#include "engine/ops/ops.h"
#include "kernels/bias_gradient.h"

namespace voca::engine::ops {
namespace {

using kernels::Transpose;

// Operands may be row slices of larger arrays, so they start at multiples of the row size; a slice of the
// bias starts at a multiple of its length.
std::int64_t start_of_operands(std::int64_t in, std::int64_t out) {
  return in | out;
}

template <typename T, typename Backend>
void bias_gradient(Context& context, Backend backend, const Tensor& dy, Tensor& dbias) {
  const ArenaScope scope(context.arena);
  kernels::BiasGradient<T> args{
      .rows = rows_of(dy), .columns = columns_of(dy), .dy = dy.as<T>(), .dbias = dbias.as<T>()};
  args.scratch = context.arena.scratch("bias gradient scratch", scratch_bytes(backend, args)).data;
  if (!context.is_dry_run()) kernels::bias_gradient(backend, args);
}

}  // namespace

void linear(Context& context, const Tensor& x, const Tensor& weight, const Tensor& bias, Tensor y) {
  const std::int64_t in = columns_of(x);
  const std::int64_t out = columns_of(y);
  expect(context, "linear", x.shape, x.dtype, {&x});
  expect(context, "linear", {out, in}, x.dtype, {&weight});
  expect_optional(context, "linear", {out}, x.dtype, {&bias});
  expect(context, "linear", x.shape.with(x.shape.rank() - 1, out), x.dtype, {&y});
  dispatch(context, "linear", x.dtype, [&]<typename T>(auto backend) {
    gemm<T>(context, backend,
            {.transpose_b = Transpose::kYes,
             .m = rows_of(x),
             .n = out,
             .k = in,
             .a = x.as<T>(),
             .lda = in,
             .b = weight.as<T>(),
             .ldb = in,
             .add_bias = static_cast<bool>(bias),
             .bias = pointer<T>(bias),
             .c = y.as<T>(),
             .ldc = out},
            start_of_operands(in, out));
  });
}

void linear_backward(Context& context, LinearGradient g) {
  const std::int64_t in = columns_of(g.x);
  const std::int64_t out = columns_of(g.dy);
  const std::int64_t rows = rows_of(g.x);
  const DType dtype = g.x.dtype;
  expect(context, "linear_backward", g.x.shape.with(g.x.shape.rank() - 1, out), dtype, {&g.dy});
  expect(context, "linear_backward", g.x.shape, dtype, {&g.x});
  expect(context, "linear_backward", {out, in}, dtype, {&g.weight, &g.dweight});
  expect_optional(context, "linear_backward", g.x.shape, dtype, {&g.dx});
  expect_optional(context, "linear_backward", {out}, dtype, {&g.dbias});
  dispatch(context, "linear_backward", dtype, [&]<typename T>(auto backend) {
    gemm<T>(context, backend,
            {.transpose_a = Transpose::kYes,
             .m = out,
             .n = in,
             .k = rows,
             .a = g.dy.as<T>(),
             .lda = out,
             .b = g.x.as<T>(),
             .ldb = in,
             .beta = 1,
             .c = g.dweight.as<T>(),
             .ldc = in},
            start_of_operands(in, out));
    if (g.dx) {
      gemm<T>(context, backend,
              {.m = rows,
               .n = in,
               .k = out,
               .a = g.dy.as<T>(),
               .lda = out,
               .b = g.weight.as<T>(),
               .ldb = in,
               .beta = g.accumulate_dx ? 1.0 : 0.0,
               .c = g.dx.as<T>(),
               .ldc = in},
              start_of_operands(in, out));
    }
    if (g.dbias) bias_gradient<T>(context, backend, g.dy, g.dbias);
  });
}

}  // namespace voca::engine::ops
